"""`python -m fsseg`."""

from fsseg.cli import main

main()
