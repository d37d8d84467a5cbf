"""The columns of the frames of records and of probes: their types, their headings, their place in a record.

A column that is read from a record has a path there. The settings of a trial are the columns with a path
below `spec`: together they cover every field of `psa.specs.trial.Trial`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from psa.specs.activation import Activation
from psa.specs.base import canonical_json
from psa.specs.data.catalogue import CATALOGUE
from psa.specs.training.settings import arm_label


@lru_cache(maxsize=256)
def _activation_label(activation: str) -> str:
    return Activation.coerce(activation).label


def _digits_text(digits: list[int] | None) -> str | None:
    return None if digits is None else ",".join(map(str, digits))


def _nested_text(value: Any) -> str | None:
    """Return a part of a spec as one text; equal texts are equal settings. None for an empty part."""
    return canonical_json(value) if value else None


def _names_text(names: list[str]) -> str | None:
    return " ".join(names) or None


def _switch_text(switch: list[str] | None) -> str | None:
    return None if switch is None else " ".join(switch)


def _shape_text(shape: list[int] | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape))


def _list_text(names: list[str] | None) -> str | None:
    return None if names is None else canonical_json(names)


def classes_and_shape(row: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Return the number of classes and the shape of a sample in a row of a frame; of MNIST where it has none.

    row: dataset, digits, class_names and sample_shape, each None or NaN where it does not apply.
    """
    stored = {key: row.get(key) for key in ("dataset", "digits", "class_names", "sample_shape")}
    dataset, digits, names, shape = (str(text) if isinstance(text, str) else "" for text in stored.values())
    facts = CATALOGUE.get(dataset, CATALOGUE["mnist"])
    classes = len(json.loads(names)) if names else len(digits.split(",")) if digits else len(facts.classes)
    return classes, tuple(map(int, shape.split("x"))) if shape else facts.shape


@dataclass(frozen=True)
class FrameColumn:
    """A column of a frame.

    label: its heading in tables. path: of its value in a record, "" for one that is computed. default: the
    value where a record leaves the field out. convert: from the stored value. observes: True for a setting
    that changes no number of a trial, only what is observed of it.
    """

    name: str
    dtype: Literal["category", "Int64", "int64", "float64", "boolean"]
    path: str = ""
    label: str = ""
    default: Any = None
    convert: Callable[[Any], Any] | None = None
    observes: bool = False

    @property
    def is_setting(self) -> bool:
        """True for a column that is part of the spec of a trial."""
        return self.path.startswith("spec.")

    def read(self, record: Mapping[str, Any]) -> Any:
        """Return the value in a record, or in {"spec": ...}; `default` where the field is missing."""
        value: Any = record
        for key in self.path.split("."):
            if not isinstance(value, Mapping) or key not in value:
                value = self.default
                break
            value = value[key]
        return value if self.convert is None else self.convert(value)


_C = FrameColumn
# status: done, unfinished (fewer loops than asked), diverged (see psa.storage.records.divergence), failed
# (its last try), damaged (its record), missing. diverged_loops: how many of its loops diverged, also of a
# trial that is done. bounty, test and zero_r are percentages; validation_size and test_size the samples they
# are of; bounty_correct: validation samples that the bounty stands for. source: psa, or published. Defaults
# are the values that specs of the published families leave out. arm: the mode and all settings that are on; a
# setting that is off is missing.
TRIAL_FIELDS: Final = (
    _C("id", "category", "id", "Trial"),
    _C("study", "category", "spec.study", "Study"),
    _C("kind", "category", "spec.kind", "Kind", "ablation"),
    _C("family", "category", "spec.model.family", "Wiring"),
    _C("arch", "category", "spec.model.arch", "Architecture", "", lambda arch: arch.strip("[]")),
    _C("activation", "category", "spec.model.activation", "Activation", "ReLU", _activation_label),
    _C("simplex", "category", "spec.model.simplex", "Simplex", "none"),
    _C("temperature", "float64", "spec.model.temperature", "Temperature"),
    _C("init", "category", "spec.model.init", "Init", "torch"),
    _C("mode", "category", "spec.intervention.mode", "Mode"),
    _C("arm", "category", label="Arm"),
    _C("units", "Int64", "spec.intervention.units", "Units"),
    _C("share", "float64", "spec.intervention.share", "Share"),
    _C("target", "category", "spec.intervention.target", "Target"),
    _C("choice", "category", "spec.intervention.choice", "Choice"),
    _C("change", "category", "spec.intervention.change", "Change"),
    _C("amount", "float64", "spec.intervention.amount", "Amount"),
    _C("rate", "float64", "spec.intervention.rate", "Rate"),
    _C("schedule", "category", "spec.intervention.schedule", "Schedule"),
    _C("schedule_loops", "Int64", "spec.intervention.schedule_loops", "Schedule loops"),
    _C("end_rate", "float64", "spec.intervention.end_rate", "End rate"),
    _C("switch", "category", "spec.intervention.switch", "Switch", None, _switch_text),
    _C("regularizer", "category", "spec.intervention.regularizer", "Regularizer"),
    _C("seed", "Int64", "spec.seed", "Seed"),
    _C("status", "category", label="Status"),
    _C("parameters", "Int64", "built.parameters", "Parameters"),
    _C("policy", "category", "spec.method.policy", "Policy"),
    _C("optimizer", "category", "spec.method.optimizer", "Optimizer", "adamw"),
    _C("lr", "float64", "spec.method.lr", "lr"),
    _C("momentum", "float64", "spec.method.momentum", "Momentum"),
    _C("batch_size", "Int64", "spec.method.batch_size", "Batch size"),
    _C("weight_decay", "float64", "spec.method.weight_decay", "Weight decay"),
    _C("patience", "Int64", "spec.method.patience", "Patience"),
    _C("stop_after", "Int64", "spec.method.stop_after", "Stop after"),
    _C("optimizer_state", "category", "spec.method.optimizer_state", "Optimizer state"),
    _C("lr_rule", "category", "spec.method.lr_rule", "lr rule"),
    _C("dropout", "float64", "spec.model.dropout", "Dropout"),
    _C("dataset", "category", "spec.data.name", "Data set"),
    _C("content_name", "category", "spec.data.content.name", "Content"),
    _C("sha256", "category", "spec.data.content.sha256", "SHA-256"),
    _C("sample_shape", "category", "spec.data.content.shape", "Sample shape", None, _shape_text),
    _C("class_names", "category", "spec.data.content.classes", "Classes", None, _list_text),
    _C("train_rows", "Int64", "spec.data.content.train", "Rows"),
    _C("validation_rows", "Int64", "spec.data.content.validation", "Validation rows"),
    _C("test_rows", "Int64", "spec.data.content.test", "Test rows"),
    _C("stratified", "boolean", "spec.data.stratified", "Stratified", False),
    _C("scaling", "category", "spec.data.scaling", "Scaling"),
    _C("digits", "category", "spec.data.digits", "Digits", None, _digits_text),
    _C("val_size", "Int64", "spec.data.val_size", "Validation size"),
    _C("split_seed", "Int64", "spec.data.split_seed", "Split seed"),
    _C("train_size", "Int64", "spec.data.train_size", "Training size"),
    _C("subset_test_size", "Int64", "spec.data.test_size", "Test size"),
    _C("memory", "category", "spec.memory", "Memory", None, _nested_text),
    _C("growth", "category", "spec.growth", "Growth", None, _nested_text),
    _C("probes", "category", "spec.probes", "Probes", (), _names_text, observes=True),
    _C("legs", "category", "spec.legs", "Earlier settings", (), _nested_text),
    _C("plugins", "category", "spec.plugins", "Plugins", (), _nested_text),
    _C("loops", "Int64", "loops", "Meta-loops"),
    _C("diverged_loops", "Int64"),
    _C("stopped_early", "boolean", "finals.stopped_early"),
    _C("validation_size", "Int64", "samples.validation"),
    _C("bounty", "float64", label="Bounty (%)"),
    _C("bounty_correct", "Int64", "finals.bounty.correct"),
    _C("bounty_loop", "Int64", "finals.bounty.loop"),
    _C("test_size", "Int64", "samples.test"),
    _C("test", "float64", label="Test (%)"),
    _C("test_loss", "float64", "finals.test.loss", "Test loss"),
    _C("zero_r", "float64", label="ZeroR (%)"),
    _C("device", "category", "device", "Device"),
    _C("source", "category"),
)
# Of a loop, from the history of a record. accuracy: of the trained copy, percent of the validation split.
# lkg: of the LKG after the loop; lkg_correct: the same as a count. layer, unit: what was ablated before it,
# the first of several; ablated: all of them. kept: the best so far; accepted: it became the LKG, the same
# without patience. loop_mode: its mode, where a trial changed it on the way.
LOOP_FIELDS: Final = (
    _C("loop", "Int64", "history.loop", "Epoch"),
    _C("loop_mode", "category", "history.mode", "Mode"),
    _C("layer", "Int64", "history.layer", "Layer"),
    _C("unit", "Int64", "history.unit", "Unit"),
    _C("accuracy", "float64", label="Accuracy (%)"),
    _C("lkg", "float64", label="LKG (%)"),
    _C("lkg_correct", "Int64"),
    _C("loss", "float64", "history.loss", "Loss"),
    _C("train_loss", "float64", "history.train_loss", "Training loss"),
    _C("kept", "boolean", "history.kept", "Kept"),
    _C("accepted", "boolean", "history.accepted", "Accepted"),
    _C("ablated", "category", "history.units", "Ablated"),
)
# Of an observation of a probe. loop: 0 before the first one, missing for the LKG after selection. index: of
# the number in its quantity, from 0. place: what it stands for, where the probe says so.
PROBE_FIELDS: Final = (
    _C("id", "category", "id", "Trial"),
    _C("probe", "category", label="Probe"),
    _C("quantity", "category", label="Quantity"),
    _C("loop", "Int64", label="Epoch"),
    _C("index", "int64"),
    _C("place", "category", label="Place"),
    _C("value", "float64", label="Value"),
)
TRIAL_COLUMNS: Final = tuple(each.name for each in TRIAL_FIELDS)
LOOP_COLUMNS: Final = tuple(each.name for each in LOOP_FIELDS)
LABELS: Final = {each.name: each.label for each in TRIAL_FIELDS}
# An arm is identified by all of these but its seed.
SPEC_FIELDS: Final = tuple(each for each in TRIAL_FIELDS if each.is_setting)
# Settings of one's own data that follow from their SHA-256, which stands for them in reports.
CONTENT_FACTS: Final = ("sample_shape", "class_names", "train_rows", "validation_rows", "test_rows")


def spec_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a spec, under the names that grids use."""
    found = {each.name: each.read({"spec": spec}) for each in SPEC_FIELDS}
    found["arm"] = arm_label(spec["intervention"], spec["method"])
    if found["simplex"] == "none":
        found["temperature"] = None  # has no effect
    return found
