"""`python scripts/generate_reproduction_tests.py`: the command `generate-reproduction-tests`."""

from psa.cli.named import generate_reproduction_tests

if __name__ == "__main__":
    generate_reproduction_tests()
