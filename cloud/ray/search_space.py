"""A declared search in Ray Tune's terms: the search space, the sampler and the scheduler."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from cloud.ray.protocol import METRIC_KEY
from psa.experiments.search import RANGES, Range, Search, WholeRange

TIME_ATTRIBUTE: Final = "training_iteration"  # Tune's count of reports: one per meta-loop


def tune_search_space(search: Search) -> dict[str, Any]:
    """Return the sampling distribution of each setting."""
    return {key: _domain(values) for key, values in search.space.items()}


def _domain(values: Range | WholeRange | tuple[Any, ...]) -> Any:
    if isinstance(values, WholeRange):
        draw_whole = tune.lograndint if values.log else tune.randint
        return draw_whole(values.low, values.high + 1)  # Tune excludes the upper bound
    if isinstance(values, Range):
        draw = tune.loguniform if values.log else tune.uniform
        return draw(values.low, values.high)
    return tune.choice(list(values))


def tune_config(search: Search, workers: int | None) -> tune.TuneConfig:
    """Return Tune's configuration: metric, sampler and scheduler."""
    strategy = search.strategy
    return tune.TuneConfig(
        metric=METRIC_KEY,
        mode="max",
        num_samples=strategy.samples,
        max_concurrent_trials=workers,
        search_alg=_sampler(search),
        scheduler=_scheduler(search),
        reuse_actors=True,  # import torch and read the data once per process
    )


def _sampler(search: Search) -> Any:
    if search.strategy.sampler == "random":
        return BasicVariantGenerator(random_state=search.strategy.seed)
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(seed=search.strategy.seed)


def _scheduler(search: Search) -> TrialScheduler:
    strategy, loops = search.strategy, search.template.meta_loops
    if strategy.scheduler == "asha":
        return ASHAScheduler(
            time_attr=TIME_ATTRIBUTE,
            max_t=loops + 1,  # a configuration that is trained to its end stops by itself
            grace_period=strategy.grace,
            reduction_factor=strategy.reduction,
        )
    if strategy.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr=TIME_ATTRIBUTE,
            perturbation_interval=strategy.grace,
            hyperparam_mutations={"space": {key: _mutation(values) for key, values in search.space.items()}},
            custom_explore_fn=functools.partial(_within, dict(search.space)),
            require_attrs=False,
        )
    return FIFOScheduler()


def _within(
    space: Mapping[str, Range | WholeRange | tuple[Any, ...]], config: dict[str, Any]
) -> dict[str, Any]:
    """Clip mutated settings to their ranges, since Tune multiplies them without a check."""
    for key, values in space.items():
        if isinstance(values, RANGES):
            config["space"][key] = min(max(config["space"][key], values.low), values.high)
    return config


def _mutation(values: Range | WholeRange | tuple[Any, ...]) -> Any:
    """Return the distribution or list that population-based training resamples a setting from."""
    return _domain(values) if isinstance(values, RANGES) else list(values)
