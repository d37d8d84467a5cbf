"""psa.analysis.frame_schema.once_per_frame: a result for each frame, kept no longer than the frame."""

from __future__ import annotations

import gc
import weakref

import pandas as pd

from psa.analysis.frame_schema import once_per_frame


class Result:
    """A result that can be referenced weakly."""


def test_a_result_is_kept_as_long_as_its_frame() -> None:
    """Two frames have two results. Of a frame that is gone nothing is left; its place can be another's."""
    calls: list[int] = []

    @once_per_frame
    def found(frame: pd.DataFrame) -> Result:
        """Return something new for every frame."""
        calls.append(len(frame))
        return Result()

    one, two = pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [1, 2]})
    first = found(one)
    assert found(one) is first
    assert found(two) is not first
    assert found(one) is first
    assert calls == [1, 2]
    left = weakref.ref(first)
    del one, first
    gc.collect()
    assert left() is None
    for size in range(3, 40):
        assert found(pd.DataFrame({"x": range(size)})) is not None
    assert calls == [1, 2, *range(3, 40)]
