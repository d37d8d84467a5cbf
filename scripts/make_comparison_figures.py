"""`python scripts/make_comparison_figures.py`: the command `make-comparison-figures`."""

from psa.cli.named import make_comparison_figures

if __name__ == "__main__":
    make_comparison_figures()
