"""`python scripts/sagemaker_cost_estimator.py`: the command `sagemaker-cost-estimator`."""

from psa.cli.named import sagemaker_cost_estimator

if __name__ == "__main__":
    sagemaker_cost_estimator()
