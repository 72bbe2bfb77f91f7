"""`python -m fsseg`."""

from fsseg.cli.main import main

main()
