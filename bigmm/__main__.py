"""`python -m bigmm` is the command line."""

from bigmm.cli import main

# Guarded, because worker processes import this module again when they start.
if __name__ == "__main__":
    main()
