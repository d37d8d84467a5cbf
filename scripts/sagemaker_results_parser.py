"""`python scripts/sagemaker_results_parser.py`: the command `sagemaker-results-parser`."""

from psa.cli.named import sagemaker_results_parser

if __name__ == "__main__":
    sagemaker_results_parser()
