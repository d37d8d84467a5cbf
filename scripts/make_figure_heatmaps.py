"""`python scripts/make_figure_heatmaps.py`: the command `make-figure-heatmaps`."""

from psa.cli.named import make_figure_heatmaps

if __name__ == "__main__":
    make_figure_heatmaps()
