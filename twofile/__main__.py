"""`python -m twofile` is the command `twofile`."""

from twofile.cli.main import main

if __name__ == "__main__":
    main()
