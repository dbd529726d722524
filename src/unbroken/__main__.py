"""`python -m unbroken`: the command line."""

from unbroken.cli import run

if __name__ == "__main__":
    run()
