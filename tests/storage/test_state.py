"""A state file is read only if it is to the bit what was written; nothing in it can run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import some_state, weights
from safetensors.numpy import save as encode_tensors

from psa.core.errors import UserError
from psa.specs.arch import Arch
from psa.specs.base import canonical_json
from psa.specs.model import PublishedModelSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import STATE_FORMAT, decode_state, encode_state


def test_a_state_is_the_same_after_its_file() -> None:
    """Every field comes back, and equal states are equal bytes."""
    state = some_state()
    content = encode_state(state)
    again = decode_state(content, "x")
    assert encode_state(again) == content == encode_state(some_state())
    assert again.trial == state.trial
    assert (again.horizon, again.loops, again.lkg_loop) == (10, 3, 2)
    assert (again.best_correct, again.best_loss, again.stopped) == (1002, 1.25, False)
    assert again.history == state.history
    assert all(np.array_equal(again.lkg[name], tensor) for name, tensor in state.lkg.items())


def test_the_file_is_an_ordinary_one_for_other_programs() -> None:
    """safetensors reads it, and finds the LKG under the names of an ordinary module."""
    from safetensors.torch import load

    found = load(encode_state(some_state()))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "hidden.0.weight": (1, 784),
        "hidden.0.bias": (1,),
        "output.weight": (10, 1),
        "output.bias": (10,),
    }


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_does_not_stop_a_save(loss: float) -> None:
    """A network that has diverged is saved like any other; the missing loss reads as none yet."""
    state = replace(some_state(), best_loss=loss)
    assert decode_state(encode_state(state), "x").best_loss == float("inf")
    assert encode_state(decode_state(encode_state(state), "x")) == encode_state(state)


def test_weights_that_are_no_numbers_keep_their_bits() -> None:
    """NaN, infinity, minus zero and denormal weights come back bit by bit."""
    state = some_state()
    bits = np.array([0x7FC00001, 0xFFC00000, 0x7F800000, 0x80000000, 0x00000001], dtype=np.uint32)
    state.lkg["output.bias"][:5] = bits.view(np.float32)
    again = decode_state(encode_state(state), "x")
    assert np.array_equal(again.lkg["output.bias"].view(np.uint32)[:5], bits)


def test_what_ordinary_training_carries_comes_back() -> None:
    """Present weights and moments lie beside the LKG in the one file."""
    trial = Trial(
        model=PublishedModelSpec(family="simplemlp", arch=Arch.parse("[1*1]")), method=StandardTraining()
    )
    carried = {kind: weights(trial.model, offset) for offset, kind in enumerate(("active", "exp_avg"), 1)}
    again = decode_state(encode_state(replace(some_state(trial=trial), carried=carried)), "x")
    assert set(again.carried) == {"active", "exp_avg"}
    assert set(again.lkg) == set(weights(trial.model))
    assert again.carried["active"]["output.bias"][0] == 1


def refused(content: bytes) -> str:
    """Why the bytes are not a state; every refusal names the file and is one line."""
    with pytest.raises(UserError) as fault:
        decode_state(content, "models/x.safetensors")
    said = str(fault.value)
    assert "models/x.safetensors" in said
    assert said.isprintable()
    return said


@pytest.mark.slow
def test_a_bit_flipped_in_any_byte_is_detected() -> None:
    """One bit of every byte, another in each: header, spec, history, digest and weights."""
    content = encode_state(some_state())
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        refused(bytes(flipped))


def test_every_bit_of_the_header_is_guarded() -> None:
    """All eight flips of the bytes that say what the rest means."""
    content = encode_state(some_state(loops=1))
    size = 8 + int.from_bytes(content[:8], "little")
    for at in [*range(40), *range(40, size, 7)]:
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            refused(bytes(flipped))


def test_a_file_of_any_other_length_is_refused() -> None:
    """Cut short anywhere, empty, or with bytes after its end."""
    content = encode_state(some_state())
    size = 8 + int.from_bytes(content[:8], "little")
    lengths = {*range(20), *range(20, size, 41), size - 1, size, size + 1, *range(size, len(content), 333)}
    for length in sorted({*lengths, len(content) - 1}):
        assert "damaged" in refused(content[:length])
    for more in (b"\0", b"\n", b"\0" * 4096, content):
        assert "damaged" in refused(content + more)


def test_blocks_of_zeros_or_of_another_file_are_detected() -> None:
    """What a crash of the system leaves: a block that was never written, or one of another file."""
    content, other = encode_state(some_state()), encode_state(some_state(loops=2))
    for at in range(0, len(content) - 512, 512):
        refused(content[:at] + bytes(512) + content[at + 512 :])
        if content[at : at + 512] != other[at : at + 512]:
            refused(content[:at] + other[at : at + 512] + content[at + 512 :])


def test_bytes_that_nobody_wrote_never_crash() -> None:
    """Headers and facts of the wrong kinds, over a thousand: each is refused in one line."""
    draws = random.Random(5)
    odd: list[Any] = [None, True, 0, -1, 1e300, "", "x", [], [1], {}, {"psa": 1}, {"psa": "{}"}, 10**400]
    for _ in range(1500):
        metadata = draws.choice([*odd, {"psa": draws.choice([*odd, json.dumps(draws.choice(odd[:-1]))])}])
        header = {"__metadata__": metadata, draws.choice(["a", "hidden.0.weight"]): draws.choice(odd)}
        body = json.dumps(draws.choice([header, metadata, {"__metadata__": metadata}])).encode()
        refused(struct.pack("<Q", len(body)) + body + bytes(draws.randrange(20)))


def rewritten(**changes: Any) -> bytes:
    """A state file whose facts were changed by someone who knew how to renew the digest."""
    from psa.storage import trial_state as module

    tensors = dict(changes.pop("tensors", some_state().lkg))
    facts = facts_of(encode_state(some_state())) | changes
    facts.pop("sha256")
    facts["sha256"] = module._digest(facts, tensors)
    return encode_tensors(tensors, metadata={"psa": canonical_json(facts)})


def facts_of(content: bytes) -> dict[str, Any]:
    """The metadata of a state file."""
    size = int.from_bytes(content[:8], "little")
    facts: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["psa"])
    return facts


def test_a_digest_alone_does_not_make_a_state() -> None:
    """Parts that do not fit each other are refused though the digest is right."""
    assert decode_state(rewritten(), "x").loops == 3
    other = weights(PublishedModelSpec(family="simplemlp", arch=Arch.parse("[1*2]")))
    assert "do not fit" in refused(rewritten(tensors=other))
    assert "do not fit" in refused(rewritten(tensors={**some_state().lkg, "more": np.zeros(3, np.float32)}))
    assert "do not fit" in refused(rewritten(loops=4))
    assert "do not fit" in refused(rewritten(history={"loop": [1, 2, 3]}))
    wrong: tuple[dict[str, Any], ...] = (
        {"spec": {"sede": 1}},
        {"spec": []},
        {"history": 3},
        {"more": 1},
        {"loops": None},
    )
    for changes in wrong:
        assert "damaged" in refused(rewritten(**changes))


def test_a_newer_format_is_left_alone() -> None:
    """What a later psa wrote is not judged damaged: the way out is another psa."""
    said = refused(rewritten(format=STATE_FORMAT + 1))
    assert "written by a newer psa" in said
    assert "Update psa" in said


def test_a_foreign_safetensors_file_is_left_alone() -> None:
    """A file of another program is sound, but no state."""
    arrays = {"layer.weight": np.zeros((2, 2), np.float32)}
    for content in (encode_tensors(arrays), encode_tensors(arrays, metadata={"format": "pt"})):
        assert "not one of psa's" in refused(content)


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_opened(protocol: int, tmp_path: Path) -> None:
    """A pickle in the place of a checkpoint is refused by its look; what it would do does not happen."""
    canary = tmp_path / "canary"
    content = pickle.dumps({"model_state": Canary(canary)}, protocol=protocol)
    said = refused(content)
    assert "is a pickle" in said if protocol >= 2 else "damaged" in said
    assert not canary.exists()
    pickle.loads(content)  # noqa: S301 - our own, to see that the canary works
    assert canary.exists()


def test_a_torch_save_checkpoint_is_never_opened(tmp_path: Path) -> None:
    """The zip form, which the earlier system wrote under the same name."""
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    torch.save({"model_state": {"w": torch.zeros(3)}, "global_meta_loops": 7, "x": Canary(canary)}, buffer)
    assert zipfile.is_zipfile(buffer)
    said = refused(buffer.getvalue())
    assert "is a pickle (an old torch.save checkpoint)" in said
    assert "move it away, or use another --model-dir" in said
    assert not canary.exists()


@pytest.mark.parametrize("length", [0x0480, 0x0580, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    """A file begins with the length of its header, and some lengths are the marks of a pickle."""
    content = with_header_of(length)
    assert content[:2] in (b"\x80\x04", b"\x80\x05", b"PK")
    assert encode_state(decode_state(content, "x")) == content
    assert "damaged" in refused(content[:-1])


def with_header_of(length: int) -> bytes:
    """A state file with a header of exactly so many bytes, by loops and by digits of the horizon."""
    loops = max((length - 1300) // 65, 0)
    for digits in range(0, 4000, 7):
        content = encode_state(replace(some_state(loops), horizon=10**digits))
        if int.from_bytes(content[:8], "little") == length:
            return content
    raise AssertionError(length)
