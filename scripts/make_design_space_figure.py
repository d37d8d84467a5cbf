"""`python scripts/make_design_space_figure.py`: the command `make-design-space-figure`."""

from psa.cli.named import make_design_space_figure

if __name__ == "__main__":
    make_design_space_figure()
