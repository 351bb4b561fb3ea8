"""`python -m loravault`: the command line."""

from loravault.cli import main

if __name__ == "__main__":
    main()
