"""psa.analysis.csv_text: the bytes that pandas writes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psa.analysis.csv_text import csv_bytes

FLOATS = st.floats(allow_nan=False, allow_subnormal=False) | st.none()
ROWS = st.lists(
    st.tuples(
        FLOATS,
        st.integers(-(2**62), 2**62) | st.none(),
        st.booleans() | st.none(),
        st.text("ab,\"é *'") | st.none(),
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_bytes_are_those_of_pandas(rows: list[tuple[object, ...]]) -> None:
    """Numbers of all sizes, booleans and text with separators and quotes; each with missing values."""
    real, whole, truth, text = (list(column) for column in zip(*rows, strict=True))
    frame = pd.DataFrame(
        {
            "real": pd.array(real, "float64"),
            "whole": pd.array(whole, "Int64"),
            "truth": pd.array(truth, "boolean"),
            "a text": pd.Categorical(text),
            "plain": pd.array(text, "string"),
        }
    )
    # as objects, floats are written by repr, whatever a library has set for the display of floats
    assert csv_bytes(frame).decode() == frame.astype({"real": object}).to_csv(index=False)


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": [], "b,c": []}), pd.DataFrame({"a": [np.inf, -0.0, 1e16, 1e-5]})]
)
def test_edges(frame: pd.DataFrame) -> None:
    """No row, a name with a comma, and numbers at the edges of their notation."""
    assert csv_bytes(frame).decode() == frame.to_csv(index=False)


def test_frames_that_were_joined() -> None:
    """Their text is in several pieces."""
    frame = pd.concat([pd.DataFrame({"a": ["x", "y,"], "b": 1.5}), pd.DataFrame({"a": ["x"], "b": 2.5})])
    assert csv_bytes(frame).decode() == frame.to_csv(index=False)
