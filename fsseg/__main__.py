"""`python -m fsseg`."""

from fsseg.cli.main import main

if __name__ == "__main__":
    main()
