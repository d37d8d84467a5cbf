"""`python scripts/sagemaker_estimate_storage.py`: the command `sagemaker-estimate-storage`."""

from psa.cli.named import sagemaker_estimate_storage

if __name__ == "__main__":
    sagemaker_estimate_storage()
