"""Networks with a hidden-state memory and networks that grow, compared with their controls.

Ordinary training of plain networks; the last state is tested once. The settings of the memory are of the
methods hybrid, hybrid_inactive and random_memory, those of growth of networks that are growing; other
methods ignore them, so that the variants of one grid can share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from psa.execution.gradient_storage import train_samples
from psa.experiments.study import Probes, TrainingSettings
from psa.specs.arch import Arch
from psa.specs.data import ValidationSize
from psa.specs.growth import Added, After, Delta, Growth, GrowthCount, Schedule, Threshold
from psa.specs.memory import Bias, Epochs, Memory, Name, Neighbours, NotNegative, OpenShare, Positive, Share
from psa.specs.memory import EntryCount as Amount
from psa.specs.model import ArchField, NetworkSpec
from psa.specs.probes import WITHOUT_MEMORY
from psa.specs.training import DropoutRate, LearningRate, WeightDecay
from psa.specs.trial import Trial

STUDY: Final = "memory"
ALIASES: Final[dict[str, str]] = {"learning_rate": "lr", "hidden_sizes": "arch"}

MemoryMethod = Literal[
    "nn", "nn_large", "nn_extra_layer", "embedding_knn", "hybrid", "hybrid_inactive", "random_memory"
]
CONTROLS: Final = {"hybrid": "none", "hybrid_inactive": "inactive", "random_memory": "random"}
METHODS: Final[tuple[str, ...]] = get_args(MemoryMethod)
# The parts of a growth and the names of their settings.
GROWTH: Final = {
    "schedule": "grow_schedule", "interval": "grow_interval", "width": "grow_width", "depth": "grow_depth",
    "max_width": "max_width", "max_depth": "max_depth", "warmup_epochs": "grow_after",
    "stop_epoch": "stop_epoch", "threshold": "grow_threshold", "min_delta": "grow_min_delta",
}  # fmt: skip
_LARGER: Final = 2  # times the widths


def _setting(text: str) -> Any:
    return Field(description=text)


class Settings(TrainingSettings):
    """The settings of a grid of this study. Limits are those of psa.specs.memory and psa.specs.growth,
    repeated here so that an error names the setting as the user wrote it.
    """

    val_size: ValidationSize = 5_000
    method: Annotated[
        MemoryMethod, _setting("Method; nn_large doubles the widths, nn_extra_layer adds a layer.")
    ] = "hybrid"
    network: Annotated[
        Literal["mlp", "cnn"],
        _setting("Kind of network; the arch of a cnn is channels of convolutions and one width."),
    ] = "mlp"
    arch: Annotated[ArchField, _setting("Hidden layers, such as 1*256, 1*128.")] = Arch(((1, 256), (1, 128)))
    dropout: DropoutRate = 0.1
    weight_decay: WeightDecay = 1e-5
    probes: Probes = ("calibration", "confusion")

    site: Annotated[
        Name, _setting("Layer of the memory: hidden_0, hidden_1, ..., penultimate, early, middle or late.")
    ] = "penultimate"
    memory_size: Annotated[Amount, _setting("Maximum number of entries.")] = 20_000
    k: Annotated[Neighbours, _setting("Entries retrieved per query.")] = 8
    metric: Annotated[Literal["euclidean", "cosine"], _setting("Distance to the entries.")] = "euclidean"
    weighting: Annotated[
        Literal["uniform", "inverse_distance", "softmax"], _setting("Weights of the retrieved entries.")
    ] = "softmax"
    temperature: Annotated[Positive, _setting("Temperature of the weights. [weighting softmax]")] = 0.1
    normalize_keys: Annotated[bool, _setting("Scale keys to length 1.")] = True
    normalize_queries: Annotated[bool, _setting("Scale queries to length 1.")] = True
    normalize_values: Annotated[bool, _setting("Scale values to length 1.")] = False
    query: Annotated[
        Literal["full", "untouched", "projection"],
        _setting("Dimensions of the hidden vector that are compared."),
    ] = "full"
    projection_dims: Annotated[Amount, _setting("Number of dimensions compared. [query projection]")] = 64
    target: Annotated[
        Literal["current_hidden", "grad_delta", "grad_target", "class_centroid"],
        _setting("Value of an entry."),
    ] = "grad_delta"
    centroid_delta: Annotated[
        bool, _setting("Store the difference from the hidden vector. [target class_centroid]")
    ] = False
    step_size: Annotated[
        LearningRate, _setting("Step along the gradient. [target grad_delta, grad_target]")
    ] = 0.1
    centroid_momentum: Annotated[OpenShare, _setting("Momentum of the class means.")] = 0.95
    memory_mode: Annotated[
        Literal["overwrite", "residual", "gated"], _setting("Change of a hidden vector.")
    ] = "gated"
    alpha: Annotated[Share, _setting("Share of the change that is applied. [memory_mode gated]")] = 0.4
    gate_schedule: Annotated[
        Literal["constant", "linear_warmup"], _setting("Course of alpha over the epochs.")
    ] = "constant"
    rise_epochs: Annotated[
        Amount, _setting("Epochs until alpha is reached. [gate_schedule linear_warmup]")
    ] = 1
    uncertainty: Annotated[bool, _setting("Reduce the change with the distance of the entries.")] = False
    gate_temperature: Annotated[Positive, _setting("Distance scale of the reduction. [uncertainty]")] = 1.0
    gate_bias: Annotated[Bias, _setting("Constant added to the gate.")] = 0.0
    strength: Annotated[WeightDecay, _setting("Factor of the change.")] = 1.0
    clip: Annotated[NotNegative | None, _setting("Maximum change of a dimension. [default: no limit]")] = None
    affected_dims: Annotated[Amount, _setting("Number of dimensions that may be changed.")] = 64
    affected_selection: Annotated[
        Literal["first", "random"], _setting("Choice of the affected dimensions.")
    ] = "random"
    train_use: Annotated[bool, _setting("Apply the memory in training.")] = True
    inference_use: Annotated[bool, _setting("Apply the memory in evaluation.")] = True
    warmup_epochs: Annotated[Epochs, _setting("Epochs before the memory is applied.")] = 0
    fill_during_warmup: Annotated[bool, _setting("Store entries in these epochs.")] = True
    insertion: Annotated[
        Literal["always", "loss_above_mean"], _setting("Training samples that become entries.")
    ] = "always"
    refresh_rate: Annotated[
        Share, _setting("Share of new entries that may update their nearest one instead.")
    ] = 0.25
    refresh_distance: Annotated[NotNegative, _setting("Maximum distance for an update.")] = 0.35
    refresh_key: Annotated[Share, _setting("Share of the old key that an update keeps.")] = 0.9
    refresh_value: Annotated[Share, _setting("Share of the old value that an update keeps.")] = 0.9
    forgetting: Annotated[
        Literal["none", "ttl", "fifo", "reservoir", "usage", "helpfulness", "helpfulness_age"],
        _setting("Choice of the entry that leaves a full memory."),
    ] = "helpfulness_age"
    ttl_steps: Annotated[
        Amount | None, _setting("Steps after which an entry is removed. [forgetting ttl]")
    ] = None
    age_weight: Annotated[OpenShare, _setting("Weight of the age. [forgetting helpfulness_age]")] = 0.5

    growing: Annotated[bool, _setting("Grow the network between epochs.")] = False
    grow_schedule: Annotated[Schedule, _setting("Condition of a growth.")] = "epoch"
    grow_interval: Annotated[
        GrowthCount, _setting("Epochs between growths; steps with grow_schedule fixed_step.")
    ] = 1
    grow_width: Annotated[Added, _setting("Units added to every hidden layer.")] = 16
    grow_depth: Annotated[Added, _setting("Hidden layers added.")] = 1
    max_width: Annotated[GrowthCount | None, _setting("Maximum width. [default: no limit]")] = None
    max_depth: Annotated[GrowthCount | None, _setting("Maximum depth. [default: no limit]")] = None
    grow_after: Annotated[After, _setting("Number of first epochs without growth.")] = 0
    stop_epoch: Annotated[
        GrowthCount | None, _setting("First epoch from which nothing grows. [default: never]")
    ] = None
    grow_threshold: Annotated[
        Threshold | None, _setting("Validation accuracy, 0 to 1. [grow_schedule performance]")
    ] = None
    grow_min_delta: Annotated[
        Delta, _setting("Least gain in validation accuracy, 0 to 1. [grow_schedule plateau]")
    ] = 1e-4

    @model_validator(mode="after")
    def _centroid_delta_is_of_centroids(self) -> Self:
        if self.centroid_delta and self.target != "class_centroid":
            raise ValueError("centroid_delta must be left out unless target is class_centroid")
        if self.method == "nn_extra_layer" and self.network != "mlp":
            raise ValueError(f"method nn_extra_layer must have network mlp, got {self.network}")
        return self


def memory_of(settings: Settings) -> Memory | None:
    """Return the memory that the settings describe, None for methods without one. Raises ValidationError."""
    control = CONTROLS.get(settings.method)
    if control is None:
        return None
    refresh = {
        "rate": settings.refresh_rate,
        "distance": settings.refresh_distance,
        "key": settings.refresh_key,
        "value": settings.refresh_value,
    }
    return Memory.model_validate(
        {
            "site": settings.site,
            "capacity": settings.memory_size,
            "retrieval": _same(
                settings, "k", "metric", "weighting", "temperature", "normalize_keys", "normalize_queries",
                "normalize_values",
            ),
            "query": {"source": settings.query, "dims": settings.projection_dims},
            "target": _target(settings),
            "mode": settings.memory_mode,
            "gate": {
                "alpha": settings.alpha,
                "schedule": settings.gate_schedule,
                "rise_epochs": settings.rise_epochs,
                "uncertainty": settings.uncertainty,
                "temperature": settings.gate_temperature,
                "bias": settings.gate_bias,
            },
            "affected": {"dims": settings.affected_dims, "selection": settings.affected_selection},
            "train": settings.train_use,
            "inference": settings.inference_use,
            "refresh": refresh if settings.refresh_rate else None,
            "forgetting": {"policy": settings.forgetting, **_same(settings, "ttl_steps", "age_weight")},
            "control": control,
            **_same(settings, "strength", "clip", "warmup_epochs", "fill_during_warmup", "insertion"),
        }
    )  # fmt: skip


def _same(settings: Settings, *names: str) -> dict[str, Any]:
    """Return the settings of these names, which are the same in the spec."""
    return {name: getattr(settings, name) for name in names}


def _target(settings: Settings) -> dict[str, Any]:
    delta = settings.centroid_delta or settings.target == "grad_delta"
    return {
        "construction": settings.target,
        "value": "delta" if delta else "absolute",
        **_same(settings, "step_size", "centroid_momentum"),
    }


def growth_of(settings: Settings) -> Growth | None:
    """Return the growth of the network, None for methods without growth. Raises ValidationError."""
    if not settings.growing:
        return None
    return Growth(**{part: getattr(settings, name) for part, name in GROWTH.items()})


def arch_of(settings: Settings) -> Arch:
    """Return the hidden layers that the method trains."""
    widths = list(settings.arch.widths)
    if settings.method == "nn_large":
        widths = [_LARGER * width for width in widths]
    if settings.method == "nn_extra_layer":
        widths += widths[-1:]
    return Arch.of_stacks([(1, width) for width in widths])


def from_settings(settings: Settings, seed: int, name: str = STUDY) -> Trial:
    """Return the trial of one point of a grid. The activity of a memory is always recorded.

    Raises pydantic.ValidationError and UserError.
    """
    memory = memory_of(settings)
    further: tuple[str, ...] = ("toggle", "retrieval") if memory is not None else ()
    further += ("embedding_knn",) if settings.method == "embedding_knn" else ()
    return Trial(
        study=name,
        kind=STUDY,
        data=settings.data,
        model=NetworkSpec(family=settings.network, arch=arch_of(settings), dropout=settings.dropout),
        method=settings.training(),
        memory=memory,
        growth=growth_of(settings),
        probes=(*settings.probes, *(probe for probe in further if probe not in settings.probes)),
        seed=seed,
    )


def warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about a grid that is valid but may not do what the user expects."""
    found = []
    for trial in trials:
        memory = trial.memory
        if memory is None or memory.forgetting.policy == "none":
            continue
        samples = train_samples(trial)
        if memory.capacity > samples:
            epochs = memory.capacity / samples
            found.append(
                f"a memory of {memory.capacity:,} entries is full after {epochs:.1f} epochs of {samples:,} "
                "samples at the earliest; policies of forgetting differ only from then on"
            )
    blind = {probe for trial in trials if trial.memory is not None for probe in trial.probes}
    found += [
        f"probe {probe} observes a network without its memory, unlike its scores"
        for probe in sorted(blind & WITHOUT_MEMORY)
    ]
    return list(dict.fromkeys(found))
