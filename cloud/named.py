"""The commands about jobs on SageMaker, as console scripts: `sagemaker-cost-estimator` and its kin."""

from __future__ import annotations

from typing import Final

from cloud.commands import cost, logs, results, storage
from psa.cli import entry

sagemaker_cost_estimator: Final = entry("sagemaker-cost-estimator", cost.cost_estimator)
sagemaker_estimate_storage: Final = entry("sagemaker-estimate-storage", storage.estimate_storage)
sagemaker_get_training_logs: Final = entry("sagemaker-get-training-logs", logs.get_training_logs)
sagemaker_logs_parser: Final = entry("sagemaker-logs-parser", logs.logs_parser)
sagemaker_results_parser: Final = entry("sagemaker-results-parser", results.results_parser)
