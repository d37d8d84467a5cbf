"""`python scripts/sagemaker_logs_parser.py`: the command `sagemaker-logs-parser`."""

from psa.cli.named import sagemaker_logs_parser

if __name__ == "__main__":
    sagemaker_logs_parser()
