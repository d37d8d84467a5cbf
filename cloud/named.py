"""The commands about jobs on SageMaker, by the names that installed console scripts import: see psa.named."""

from __future__ import annotations

from psa.named import (
    sagemaker_cost_estimator,
    sagemaker_estimate_storage,
    sagemaker_get_training_logs,
    sagemaker_logs_parser,
    sagemaker_results_parser,
)

__all__ = (
    "sagemaker_cost_estimator",
    "sagemaker_estimate_storage",
    "sagemaker_get_training_logs",
    "sagemaker_logs_parser",
    "sagemaker_results_parser",
)
