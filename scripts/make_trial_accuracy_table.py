"""`python scripts/make_trial_accuracy_table.py`: the command `make-trial-accuracy-table`."""

from psa.cli.named import make_trial_accuracy_table

if __name__ == "__main__":
    make_trial_accuracy_table()
