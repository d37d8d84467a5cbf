"""`python scripts/make_late_breakthroughs.py`: the command `make-late-breakthroughs`."""

from psa.cli.named import make_late_breakthroughs

if __name__ == "__main__":
    make_late_breakthroughs()
