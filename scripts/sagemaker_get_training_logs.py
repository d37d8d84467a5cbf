"""`python scripts/sagemaker_get_training_logs.py`: the command `sagemaker-get-training-logs`."""

from psa.cli.named import sagemaker_get_training_logs

if __name__ == "__main__":
    sagemaker_get_training_logs()
