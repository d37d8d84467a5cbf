"""A declared search in Ray Tune's terms: what is sampled, by whom, and who is stopped early."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from cloud.ray.protocol import METRIC
from psa.experiments.search import RANGES, Range, Search, WholeRange

TIME: Final = "training_iteration"  # Tune's count of reports: one per meta-loop


def space(search: Search) -> dict[str, Any]:
    """How each setting is drawn."""
    return {key: _domain(values) for key, values in search.space.items()}


def _domain(values: Range | WholeRange | tuple[Any, ...]) -> Any:
    if isinstance(values, WholeRange):
        draw_whole = tune.lograndint if values.log else tune.randint
        return draw_whole(values.low, values.high + 1)  # Tune leaves the upper end out
    if isinstance(values, Range):
        draw = tune.loguniform if values.log else tune.uniform
        return draw(values.low, values.high)
    return tune.choice(list(values))


def config_of(search: Search, workers: int | None) -> tune.TuneConfig:
    """Metric, sampler and scheduler."""
    strategy = search.strategy
    return tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=strategy.samples,
        max_concurrent_trials=workers,
        search_alg=_sampler(search),
        scheduler=_scheduler(search),
        reuse_actors=True,  # torch is imported and the data are read once a process
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
            time_attr=TIME,
            max_t=loops + 1,  # a configuration that is trained to its end ends by itself
            grace_period=strategy.grace,
            reduction_factor=strategy.reduction,
        )
    if strategy.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=strategy.grace,
            hyperparam_mutations={"space": {key: _mutation(values) for key, values in search.space.items()}},
            custom_explore_fn=functools.partial(_within, dict(search.space)),
            require_attrs=False,
        )
    return FIFOScheduler()


def _within(
    space: Mapping[str, Range | WholeRange | tuple[Any, ...]], config: dict[str, Any]
) -> dict[str, Any]:
    """Explored settings, kept within their ranges: they are multiplied without looking."""
    for key, values in space.items():
        if isinstance(values, RANGES):
            config["space"][key] = min(max(config["space"][key], values.low), values.high)
    return config


def _mutation(values: Range | WholeRange | tuple[Any, ...]) -> Any:
    """What population-based training draws anew from; a setting may otherwise change by a fifth."""
    return _domain(values) if isinstance(values, RANGES) else list(values)
