"""`python -m psa`: the same as `psa`, with the Python that is named."""

from psa.cli.app import main

if __name__ == "__main__":
    main()
