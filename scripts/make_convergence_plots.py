"""`python scripts/make_convergence_plots.py`: the command `make-convergence-plots`."""

from psa.cli.named import make_convergence_plots

if __name__ == "__main__":
    make_convergence_plots()
