"""`python scripts/make_architecture_table.py`: the command `make-architecture-table`."""

from psa.cli.named import make_architecture_table

if __name__ == "__main__":
    make_architecture_table()
