"""`python -m unbroken`: the command line."""

from unbroken.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
