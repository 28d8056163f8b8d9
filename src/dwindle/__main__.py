"""`python -m dwindle` is the `dwindle` command."""

from dwindle.cli import main

if __name__ == "__main__":
    main()
