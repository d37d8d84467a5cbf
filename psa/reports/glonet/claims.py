"""The conclusions of the depth study: sentences for either outcome, chosen by the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

import numpy as np

from psa.analysis.stats import LEAST_N, Paired, Values, paired, present
from psa.core.formatting import format_range, join_names, pluralize
from psa.reports.glonet.layer_use import FIRST, NEAR, Use, telling
from psa.reports.glonet.networks import CHANCE, GlonetResults, Network, Trained, mean
from psa.reports.glonet.tables import own_columns, trained_for
from psa.reports.glonet.usage_table import exits_of, learned_count, use_of_learned

RESILIENT: Final = 1.0  # points of accuracy that depth may cost
_EXPLODED: Final = 100.0  # nats of training loss; guessing among ten digits has 2.3


def measured(results: GlonetResults, model: str, features: int) -> list[Trained]:
    """Return the networks of a model and width that have a finished trial, ascending by layers."""
    return [each for each in results.of(model, features) if each.n]


def ends_of(networks: Sequence[Trained]) -> tuple[Trained, Trained]:
    """Return the networks with the greatest and the least mean test accuracy."""
    best = max(networks, key=lambda each: float(mean(each.test)))
    worst = min(networks, key=lambda each: float(mean(each.test)))
    return best, worst


def resilience(results: GlonetResults, model: str = "GloNet") -> Iterator[str]:
    """Yield a sentence for each width on whether depth costs a model accuracy."""
    for features in results.features:
        networks = measured(results, model, features)
        if len(networks) < 2:
            if networks:
                yield f"{model} of width {features} was trained at one depth: nothing can be said of depth."
            continue
        best, worst = ends_of(networks)
        if at_chance(results, best):
            yield f"{model} of width {features} learned nothing at any depth: nothing can be said of depth."
            continue
        span = f"from {networks[0].network.layers} to {networks[-1].network.layers} layers"
        numbers = (
            f"mean test accuracy lies between {mean(worst.test):.2f} % ({worst.network.layers} layers) and "
            f"{mean(best.test):.2f} % ({best.network.layers} layers)"
        )
        # by validation: the best by test accuracy would be too good, and depth would seem to cost some
        shallower = max(networks[:-1], key=lambda each: float(mean(each.validation)))
        lost = paired(shallower.test, networks[-1].test)
        yield (
            f"{model} of width {features}, {span}: {numbers}. The deepest minus the shallower one with the "
            f"best validation accuracy ({shallower.network.layers} layers): "
            f"{_points(-lost.difference, -lost.high, -lost.low)}; {cost_verdict(lost)}."
        )


# The verdicts on the cost of depth and their conditions, by the ends of its interval: the first that holds
# counts. A gain counts as no cost.
COST_VERDICTS: Final[tuple[tuple[str, Callable[[float, float], bool]], ...]] = (
    (
        f"whether depth costs more than {RESILIENT:g} point cannot be told: fewer than {LEAST_N} pairs of "
        "seeds give no interval",
        lambda low, high: math.isnan(low) or math.isnan(high),
    ),
    (
        f"depth costs no more than {RESILIENT:g} point",
        lambda low, high: high <= RESILIENT,
    ),
    (
        f"depth costs more than {RESILIENT:g} point",
        lambda low, high: low > RESILIENT,
    ),
    (
        f"whether depth costs more than {RESILIENT:g} point cannot be told: the interval spans both",
        lambda low, high: True,
    ),
)


def cost_verdict(lost: Paired) -> str:
    """Return the verdict by the interval of the cost of depth."""
    return next(text for text, holds in COST_VERDICTS if holds(lost.low, lost.high))


def _points(value: float, low: float, high: float) -> str:
    around = "" if np.isnan(low) else f" (95 % interval {low:+.2f} to {high:+.2f})"
    return f"{value:+.2f} points{around}".replace("-", "−")


def at_chance(results: GlonetResults, each: Trained) -> bool:
    """Return whether no trial of a network was above ZeroR by more than CHANCE points after any epoch."""
    return each.n > 0 and bool((present(each.best) <= results.zero_r + CHANCE).all())


def chance_from(results: GlonetResults, model: str, features: int) -> int | None:
    """Return the least number of layers from which on all networks of a model are at chance, None if none."""
    deepest_first = reversed(measured(results, model, features))
    lost = list(takewhile(lambda each: at_chance(results, each), deepest_first))
    return lost[-1].network.layers if lost else None


def chance(results: GlonetResults, model: str = "MLP") -> Iterator[str]:
    """Yield a sentence for each width on whether a model learns nothing from some depth on."""
    for features in results.features:
        networks = measured(results, model, features)
        if not networks:
            continue
        first = chance_from(results, model, features)
        deepest = networks[-1]
        if first is None:
            yield (
                f"{model} of width {features} {_learning(results, networks)}: with {deepest.network.layers} "
                f"layers its mean test accuracy is {mean(deepest.test):.2f} % (ZeroR {results.zero_r:.2f} %)."
            )
            continue
        before = [each for each in networks if each.network.layers < first]
        learns = f"; {_last_that_learns(results, before)}" if before else ""
        yield (
            f"{model} of width {features} is at chance from {first} layers on: in "
            f"{trained_for(results)} no trial was more than {CHANCE:g} point above ZeroR "
            f"({results.zero_r:.2f} %){learns}{_exploded(deepest)}."
        )


def _last_that_learns(results: GlonetResults, networks: Sequence[Trained]) -> str:
    """Return a phrase on the deepest of some networks, with its trials at chance, which its mean hides."""
    deepest = networks[-1]
    lost = _at_chance(results, [deepest]).get(deepest.network.layers, 0)
    besides = f" ({lost} of {pluralize(deepest.n, 'trial')} at chance)" if lost else ""
    return (
        f"with {deepest.network.layers} layers its mean test accuracy is {mean(deepest.test):.2f} %{besides}"
    )


def _exploded(each: Trained) -> str:
    """Return a phrase on the training loss of a network at chance that is far above that of guessing."""
    losses = present(each.train_losses)
    if not len(losses) or losses.max() <= _EXPLODED:
        return ""
    layers = each.network.layers
    return f". Its training loss reached {losses.max():.2g} with {layers} layers: it did not begin to learn"


def chance_fact(results: GlonetResults, model: str, features: int) -> tuple[str, str]:
    """Return from which depth on a model is at chance, and the trials behind it."""
    networks = measured(results, model, features)
    first, lost = chance_from(results, model, features), _at_chance(results, networks)
    n = f"n = {format_range(each.n for each in networks)}"
    if first is not None:
        return (
            f"from {first} layers on",
            f"no trial more than {CHANCE:g} point above ZeroR on validation; {n}",
        )
    if lost:
        return "in some trials", f"{pluralize(sum(lost.values()), 'trial')} ({_layers(lost)} layers); {n}"
    return "in no trial", f"up to {networks[-1].network.layers} layers, by validation accuracy; {n}"


def _learning(results: GlonetResults, networks: Sequence[Trained]) -> str:
    """Return a phrase on whether all trials learn, for networks of which the deepest learns."""
    done, lost = sum(each.n for each in networks), _at_chance(results, networks)
    if not lost:
        return "learns at every depth that was trained"
    return (
        f"does not learn in every trial: {sum(lost.values())} of {pluralize(done, 'trial')} stay at chance "
        f"(with {_layers(lost)} layers)"
    )


def _at_chance(results: GlonetResults, networks: Sequence[Trained]) -> dict[int, int]:
    """Return the number of trials at chance by the number of layers, without zeros."""
    counts = {
        each.network.layers: int((present(each.best) <= results.zero_r + CHANCE).sum()) for each in networks
    }
    return {layers: count for layers, count in counts.items() if count}


def _layers(lost: Mapping[int, int]) -> str:
    return join_names(list(map(str, lost)))


def usage(
    results: GlonetResults, uses: Mapping[Network, Use], model: str = "GloNet", *, beside: bool = True
) -> Iterator[str]:
    """Yield sentences on whether a model uses only its first layers; beside: cite the earlier document."""
    observed = [uses[each.network] for each in _all(results, model) if each.network in uses]
    found = [use_of_learned(results, use) for use in observed if learned_count(results, use)[0] >= LEAST_N]
    judged = [use for use in found if use.verdict != "short"]
    if not judged:
        if observed:
            learned = f"learned in {LEAST_N} or more trials and "
            able = "" if len(found) == len(observed) else learned
            yield f"No {model} here {able}is deep enough to tell whether it uses only its first layers."
        return
    many = pluralize(len(judged), model)
    many += f" of {2 * FIRST[0]} or more hidden layers" if len(judged) < len(found) else ""
    concentrated = [use for use in judged if use.verdict == "concentrated"]
    if len(concentrated) == len(judged):
        head = f"Use is concentrated in the first layers in all {many}"
    elif not concentrated:
        head = f"Use is not concentrated in the first layers in any of {many}"
    else:
        head = f"Use is concentrated in the first layers in {len(concentrated)} of {many}"
    leaning = sum(use.verdict == "leaning to the first layers" for use in judged)
    head += f"; it leans to them in {leaning}" if leaning else ""
    remark = " The earlier document says that only the first 4 to 8 are used, whatever the depth." * beside
    yield f"{head}, by the mean output |h| of hidden layers on the validation split.{remark}"
    yield from map(_of_layers, judged)


def _of_layers(use: Use) -> str:
    hidden = len(use.shares)
    count = telling(hidden)
    outputs = mean(use.end, axis=0)
    return (
        f"{use.network.label}: the first {count} of {hidden} hidden layers hold {100 * use.first(count):.1f} "
        f"% of the total (equal use: {100 * count / hidden:.1f} %), {use.verdict}; mean |h| is "
        f"{outputs.min():.3g} to {outputs.max():.3g}, and {use.holding} layers hold 90 %."
    )


def _all(results: GlonetResults, model: str) -> list[Trained]:
    return [each for features in results.features for each in results.of(model, features)]


def exits(results: GlonetResults, uses: Mapping[Network, Use], model: str = "GloNet") -> Iterator[str]:
    """Yield a sentence on the number of layers after which a network can be left."""
    parts = []
    for each in _all(results, model):
        if each.network not in uses:
            continue
        use = uses[each.network]
        found = present(exits_of(results, use, each))
        if not len(found):
            continue
        hidden = use.exits.shape[1]
        parts.append(
            f"{format_range(found)} of {hidden} ({each.network.layers} layers of {each.network.features})"
        )
    if parts:
        yield (
            f"The head of a {model} that reads only the first k hidden layers answers within {NEAR:g} point "
            f"of the whole network after k = {'; '.join(parts)}."
        )


def speed_of_learning(results: GlonetResults) -> Iterator[str]:
    """Yield sentences on whether GloNet converges in fewer epochs than MLP, where both learn."""
    for features in results.features:
        fewer, same, more = _compared(results, features)
        total = len(fewer) + len(same) + len(more)
        if total:
            yield (
                f"Width {features}: GloNet comes within 1 point of its own best in fewer epochs than MLP at "
                f"{_at(fewer)}, in as many at {_at(same)}, and in more at {_at(more)}, of the "
                f"{pluralize(total, 'depth')} with {LEAST_N} or more pairs of trials that all learn. These "
                "are means, not tests."
            )


def _at(layers: Sequence[str]) -> str:
    return f"{pluralize(len(layers), 'depth')} ({join_names(layers)} layers)" if layers else "no depth"


def _compared(results: GlonetResults, features: int) -> tuple[list[str], list[str], list[str]]:
    """Return the depths at which GloNet needs fewer, as many, and more epochs, by the mean over seeds."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for one in measured(results, "GloNet", features):
        other = results.get("MLP", one.network.layers, features)
        if other is None:
            continue
        difference: Values = own_columns(one, results) - own_columns(other, results)
        there = present(difference)
        if len(there) >= LEAST_N and len(there) == min(one.n, other.n):
            found[int(np.sign(there.mean())) + 1].append(str(one.network.layers))
    return found
