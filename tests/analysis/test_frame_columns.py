"""The table of frame columns covers every field of a trial's spec, and the lists of reports agree with it."""

from __future__ import annotations

import pytest
from spec_fields import FIELDS

from psa.analysis.frame_columns import (
    CONTENT_FACTS,
    LABELS,
    SPEC_FIELDS,
    TRIAL_COLUMNS,
    FrameColumn,
    spec_columns,
)
from psa.analysis.pooling import POOLED_SETTINGS
from psa.reports.wording import SETTINGS
from psa.specs.trial import Trial


def covers(column: FrameColumn, field: str) -> bool:
    """Return True if the value of a column contains this field."""
    return field == column.path or field.startswith(f"{column.path}.")


def test_the_fields_of_a_spec_are_found_at_any_depth() -> None:
    """Or the next test would be of nothing."""
    assert {"spec.seed", "spec.data.train_size", "spec.method.momentum", "spec.memory.gate.alpha"} <= {
        *FIELDS
    }


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_spec_is_reached_by_one_column(field: str) -> None:
    """So that trials can be compared in all that distinguishes them."""
    assert len([column for column in SPEC_FIELDS if covers(column, field)]) == 1


def test_no_column_is_of_a_field_that_no_spec_has() -> None:
    """A path that was renamed would read its default in silence."""
    assert [column.path for column in SPEC_FIELDS if not any(covers(column, each) for each in FIELDS)] == []


def test_a_field_that_a_spec_leaves_out_has_its_default() -> None:
    """A published network names neither its activation nor its optimiser."""
    spec = Trial().model_dump(mode="json")
    found = spec_columns(spec)
    assert (found["activation"], found["optimizer"], found["arch"]) == ("ReLU", "adamw", "1*1024")
    assert (found["temperature"], found["digits"], found["batch_size"]) == (None, None, 256)


def test_the_size_of_a_subset_is_a_setting() -> None:
    """The training size distinguishes arms of the memory study."""
    size = next(column for column in SPEC_FIELDS if column.path == "spec.data.train_size")
    spec = Trial.model_validate({"data": {"train_size": 500}}).model_dump(mode="json")
    assert (size.read({"spec": spec}), spec_columns(spec)["train_size"]) == (500, 500)


def test_the_settings_of_reports_are_those_of_the_table() -> None:
    """Every setting but what names the study; only a probe changes no number of a trial."""
    settings = {column.name for column in SPEC_FIELDS}
    assert settings - {*POOLED_SETTINGS} == {"seed", "probes"}
    assert {*SETTINGS} == {*POOLED_SETTINGS} - {"study", "kind", *CONTENT_FACTS}
    assert all(LABELS[name] for name in settings)


def test_names_of_columns_are_unique() -> None:
    """A column has one place."""
    assert len({*TRIAL_COLUMNS}) == len(TRIAL_COLUMNS)
    assert len({column.name for column in SPEC_FIELDS}) == len(SPEC_FIELDS)
