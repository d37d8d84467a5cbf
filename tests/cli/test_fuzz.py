"""Whatever psa is handed, it does as asked or says one line: no other exception, no hang, no gigabytes.

Each test runs few examples, always the same ones. PSA_FUZZ=100 (or `make fuzz`) runs a hundred times as many
and draws others each time. What such a run has found stands here as an example of its own.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import logging
import os
import resource
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pytest
from archives import tarred
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_up import some_record, some_state
from paths import ROOT
from safetensors.numpy import save as encode_tensors

from cloud.aws.artifact import Limits, read_artifact
from cloud.aws.job_description import parse_description, read_jobs
from cloud.aws.job_names import LegacyJobName
from cloud.aws.pricing import price_table
from cloud.aws.settings import read_settings
from cloud.legacy.artifacts import NoResults, collect_results, frame_of_results, read_bounties
from cloud.legacy.logs import frame_of_logs, parse_runs, read_logs
from cloud.results_sync import import_records
from psa.analysis.frame_schema import trials_of
from psa.analysis.records_frame import load_records_frame
from psa.cli import app
from psa.core.errors import UserError
from psa.experiments import grid, search
from psa.experiments.search_log import SearchLog
from psa.experiments.study import study_named, study_names
from psa.specs.activation import ACTIVATIONS, Activation
from psa.specs.arch import Arch
from psa.specs.base import canonical_json
from psa.specs.data import digits_of, resolved
from psa.specs.probes import OPTIONS, PROBES, parse_probe
from psa.storage import array_file
from psa.storage.records.record import decode_record, encode_record
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.store import Store
from psa.storage.trial_state import _digest, decode_state, encode_state

T = TypeVar("T")

FACTOR: Final = int(os.environ.get("PSA_FUZZ", "1"))
LONGEST: Final = 1_000  # characters of a message
PATIENCE: Final = 20.0  # seconds for one example, on a machine that others use as well
ROOM: Final = 2 * 2**30  # bytes beyond what the process had
SECRET: Final = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105  # nobody's
REPRODUCTION: Final = ROOT / "reproduction"

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=FACTOR == 1,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.large_base_example,
    ],
)


def fuzzed(examples: int) -> settings:
    """So many examples, or FACTOR times as many."""
    return settings(settings.get_profile("fuzz"), max_examples=examples * FACTOR)


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    """No test may take gigabytes: what asks for them meets a MemoryError, which is a failure."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # only Linux tells
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is warned of is not looked at here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _hangs(*_: object) -> None:
    raise AssertionError("it takes too long")


def clean(call: Callable[[], T]) -> T | None:
    """What the call returns, None where it refuses in one line."""
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return call()
    except UserError as error:
        said = str(error)
        assert said.isprintable(), said
        assert 10 < len(said) <= LONGEST, len(said)
        assert SECRET not in said
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder inside another, in which nothing else may appear."""
    with tempfile.TemporaryDirectory(prefix="psa-fuzz-") as outer:
        inner = Path(outer) / "inner"
        inner.mkdir()
        yield inner
        assert os.listdir(outer) == ["inner"]  # noqa: PTH208  # all names, whatever they are made of


# ---- what is typed

NUMBERS: Final = (
    "0", "1", "2", "7", "-1", "1e-3", "0.5", "1e400", "nan", "inf", "9" * 12, "9" * 30, "9" * 5_000, "0x10",
    "1_0", "٣", "true", "false",
)  # fmt: skip
ODD: Final = (
    "",
    " ",
    "\0",
    "\n",
    "\x1b[2J",
    "\ud800",
    "../x",
    "/etc/passwd",
    "@",
    "@x",
    "'",
    '"',
    "é",
    "a" * 300,
)


def texts(*tokens: str) -> st.SearchStrategy[str]:
    """Made of these tokens, of numbers, and of anything."""
    each = st.one_of(
        st.sampled_from(tokens), st.sampled_from(tokens), st.sampled_from(NUMBERS), st.sampled_from(ODD),
        st.text(max_size=4), st.integers(0, 300).map(str),
    )  # fmt: skip
    return st.lists(each, max_size=12).map("".join)


def values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say, and numbers that only Python's reader takes."""
    number = st.one_of(
        st.integers(-(2**70), 2**70), st.sampled_from([0, 1, -1, 2**63, 10**400]), st.integers(0, 20)
    )
    leaves = st.one_of(
        st.none(), st.booleans(), number, st.floats(allow_subnormal=False), st.text(max_size=8),
        st.sampled_from(ODD),
    )  # fmt: skip
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=8,
    )


def changed(draw: st.DrawFn, body: Any, changes: int = 3) -> Any:
    """A copy of nested values with some of them replaced, removed or put in."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, changes))):
        spot = body
        while True:
            keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = spot[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                spot = inner
                continue
            what = draw(st.integers(0, 5))
            if what == 0:
                del spot[key]
            elif what == 1 and isinstance(spot, dict):
                spot[draw(st.text(max_size=8) | st.sampled_from(ODD))] = draw(values())
            else:
                spot[key] = draw(values())
            break
    return body


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes flipped, cut out, put in, cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        if draw(st.booleans()):
            found[at : at + draw(st.integers(0, 400))] = draw(st.binary(max_size=12))
        elif at < len(found):
            found[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.integers(0, 4)) == 0 else found)


@fuzzed(60)
@given(texts("[", "]", "*", ",", "4*4", " ", "1*65536", "10000*1"))
def test_archs(text: str) -> None:
    """One that is read says itself again, and its name is one of a folder."""
    found = clean(lambda: Arch.coerce(text))
    if found is not None:
        assert Arch.coerce(str(found)) == Arch.coerce(found.label) == found
        assert found.slug.isascii()
        assert len(found.slug) <= 80
        assert "/" not in found.slug


@fuzzed(20)
@given(values())
def test_archs_of_other_kinds(value: Any) -> None:
    """What a grid may hold in place of a text."""
    clean(lambda: Arch.coerce(value))
    clean(lambda: Activation.coerce(value))


PARAMETERS: Final = sorted({key for known in ACTIVATIONS.values() for key in known})


@st.composite
def activations(draw: st.DrawFn) -> str:
    """A known name with some of its parameters, or with others."""
    name = draw(st.sampled_from([*ACTIVATIONS, "HectoSparseMax", "None"]))
    known = list(ACTIVATIONS.get(name, {})) or PARAMETERS
    keys = draw(st.lists(st.sampled_from(known), unique=True, max_size=12))
    number = st.floats(allow_subnormal=False).map(repr) | st.sampled_from(
        [*NUMBERS, "linear", "cosine", "''"]
    )
    return f"{name}({', '.join(f'{key}={draw(number)}' for key in keys)})"


@fuzzed(60)
@given(activations() | texts(*ACTIVATIONS, *PARAMETERS, "(", ")", "=", ",", "linear"))
def test_activations(text: str) -> None:
    """One that is read says itself again, has a scale in every epoch, and its name is one of a folder."""
    found = clean(lambda: Activation.coerce(text))
    if found is not None:
        assert Activation.coerce(str(found)) == found
        assert all(np.isfinite(found.scale_at(epoch)) for epoch in (1, 2, 10, 1_000, 10_000_000))
        assert found.slug.isascii()
        assert len(found.slug) <= 80
        assert "/" not in found.slug


@fuzzed(40)
@given(texts(*PROBES, *(key for each in OPTIONS.values() for key in each), "(", ")", "=", ",", "+"))
def test_probes(text: str) -> None:
    """With options and without."""
    clean(lambda: parse_probe(text))


@fuzzed(40)
@given(texts("even", "prime", ",", "[", "]", "(", ")", " "))
def test_digits(text: str) -> None:
    """A set that is read is in rising order."""
    found = clean(lambda: digits_of(text))
    if found is not None:
        assert list(found) == sorted(set(found))
        assert set(found) <= set(range(10))


@fuzzed(20)
@given(values())
def test_digits_of_other_kinds(value: Any) -> None:
    """What a grid may hold in their place: a ValueError is what pydantic reports."""
    with contextlib.suppress(ValueError):
        resolved(value)


STUDIES: Final = sorted(study_names())
FIELDS: Final = sorted({key for name in STUDIES for key in study_named(name, "").Settings.model_fields})
WORDS: Final = (
    *FIELDS,
    "seed",
    "seeds",
    "meta_loops",
    "variant",
    "first",
    "=",
    "=",
    ",",
    "..",
    "[",
    "]",
    ".",
    "none",
)
LITTLE: Final = {
    "ablation": {"base": {"arch": "1*4"}, "axes": {"mode": ["none", "hidden"]}},
    "glonet": {"base": {}},
}


@fuzzed(60)
@given(
    st.sampled_from(STUDIES),
    st.lists(texts(*WORDS) | st.tuples(st.sampled_from(FIELDS), texts(*WORDS)).map("=".join), max_size=3),
    st.just("") | texts(*WORDS, " ") | st.tuples(st.sampled_from(FIELDS), texts(*WORDS)).map("=".join),
)
def test_overrides_and_only(study: str, overrides: list[str], only: str) -> None:
    """Words of the command line, for every study."""
    body = {"study": study, **LITTLE.get(study, {})}
    clean(lambda: grid.load_grid(body, overrides, only))


@fuzzed(40)
@given(texts(*(str(number) for number in range(10)), "..", ",", " ", "@", "0..4"))
def test_seeds(text: str) -> None:
    """Of a grid, and of --only."""
    clean(lambda: grid.load_grid({"seeds": text}))
    clean(lambda: grid.load_grid({"seeds": [0, 1]}, only=f"seed={text}"))


# ---- grids

TABLES: Final = (
    "study",
    "name",
    "about",
    "meta_loops",
    "seeds",
    "base",
    "axes",
    "variants",
    "stages",
    "space",
)


def dumped(body: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(body, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {dumped(each)}" for key, each in body.items()) + "}"
    if isinstance(body, list):
        return "[" + ", ".join(map(dumped, body)) + "]"
    return json.dumps(body) if isinstance(body, bool | str) else repr(body)


def settings_values() -> st.SearchStrategy[Any]:
    """Of a setting in a grid: what one may be, or anything."""
    likely = [
        "none",
        "hidden",
        "2*4",
        "[1*4]",
        "even",
        "adam",
        "softmax",
        "0..3",
        0.001,
        1,
        0,
        8,
        True,
        False,
        64,
    ]
    return st.sampled_from(likely) | values() | st.lists(st.sampled_from(likely), max_size=3)


def tables() -> st.SearchStrategy[dict[str, Any]]:
    """Settings and what they are."""
    return st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), settings_values(), max_size=4)


def stages() -> st.SearchStrategy[Any]:
    """[[stages]], or something in their place."""
    each = st.fixed_dictionaries(
        {"name": st.sampled_from(["first", "second", "third"]) | st.text(max_size=6)},
        optional={
            "meta_loops": st.integers(-1, 20) | values(),
            "seeds": st.sampled_from(["0..2", [0, 1]]) | values(),
            "settings": tables(),
            "promote": st.dictionaries(
                st.sampled_from(["best", "within", "groups", "always"]), settings_values(), max_size=3
            ),
        },
    )
    return st.lists(each, max_size=4) | values()


def grids() -> st.SearchStrategy[dict[str, Any]]:
    """A body with known keys and unknown ones."""
    return st.fixed_dictionaries(
        {},
        optional={
            "study": st.sampled_from(STUDIES) | values(),
            "name": st.sampled_from(["mine", "a-b"]) | values(),
            "about": values(),
            "meta_loops": st.integers(-1, 50) | values(),
            "seeds": st.sampled_from(["0..3", [0, 1], 5]) | values(),
            "base": tables() | values(),
            "axes": tables() | values(),
            "variants": st.dictionaries(st.text(max_size=5), tables(), max_size=3) | values(),
            "stages": stages(),
            "space": tables(),
            "search": st.dictionaries(
                st.sampled_from(["samples", "scheduler", "sampler", "grace", "reduction", "seed"]),
                values() | st.sampled_from(["asha", "pbt", "none", 5]),
            ),
            "nonsense": values(),
        },
    )


def asked(text: bytes, overrides: tuple[str, ...] = (), only: str = "") -> None:
    """Read a file as a grid and as a search."""
    with place() as folder:
        path = folder / "grid.toml"
        path.write_bytes(text)
        clean(lambda: grid.load_grid(path, overrides, only))
        clean(lambda: search.load_search(path, overrides))


@fuzzed(40)
@given(grids())
def test_grids(body: dict[str, Any]) -> None:
    """Any structure, as a mapping and as a file."""
    clean(lambda: grid.load_grid(body))
    asked("\n".join(f"{key} = {dumped(value)}" for key, value in body.items()).encode(errors="replace"))


REAL: Final = {
    path.name: path.read_text().replace('"0..9"', "[0]")
    for path in sorted(REPRODUCTION.glob("*.toml"))
    if path.name not in ("simplemlp.toml", "resmlp.toml")  # thousands of trials each
}


@st.composite
def mutated_grids(draw: st.DrawFn) -> bytes:
    """A real grid with tokens exchanged, lines moved, and bytes damaged."""
    text = REAL[draw(st.sampled_from(sorted(REAL)))]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.integers(0, 3))
        if what == 0:
            lines.pop(at) if len(lines) > 1 else None
        elif what == 1:
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif what == 2:
            key, _, _ = lines[at].partition("=")
            lines[at] = f"{key}= {dumped(draw(settings_values()))}"
        else:
            lines[at] = f"{draw(st.sampled_from([*FIELDS, *TABLES]))} = {lines[at].partition('=')[2]}"
    found = "\n".join(lines).encode(errors="replace")
    return damaged(draw, found) if draw(st.integers(0, 3)) == 0 else found


@fuzzed(30)
@given(mutated_grids())
def test_mutated_grids(content: bytes) -> None:
    """Near what is right."""
    asked(content)


@fuzzed(20)
@given(st.lists(texts("plan", "--only", "--json", "smoke.toml", "--set", "lr=1", "--"), max_size=4))
def test_the_command_line(words: list[str]) -> None:
    """`psa plan` of any words: an exit code of 0 or 2, and one line where it is 2."""
    with place() as folder, contextlib.chdir(folder):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.run(app.PSA, ["plan", str(REPRODUCTION / "smoke.toml"), *words])
        assert code in (0, 2), err.getvalue()
        if code == 2:
            assert err.getvalue().count("\n") == 1
            assert len(err.getvalue()) <= LONGEST + len("error: \n")


# ---- what is stored

STATE: Final = encode_state(some_state())


def header(text: bytes, tensors: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    return len(text).to_bytes(8, "little") + text + tensors


def with_facts(facts: Any, tensors: dict[str, Any], *, signed: bool = True) -> bytes:
    """A state that says these things, and whose digest is right."""
    if signed and isinstance(facts, dict):
        with contextlib.suppress(ValueError, RecursionError):
            facts["sha256"] = _digest(facts, tensors)
    return encode_tensors(tensors, metadata={"psa": json.dumps(facts, sort_keys=True, separators=(",", ":"))})


def facts_and_tensors() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a sound state."""
    state = some_state()
    content = encode_state(state)
    size = int.from_bytes(content[:8], "little")
    facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["psa"])
    del facts["sha256"]
    return facts, dict(state.lkg)


@st.composite
def states(draw: st.DrawFn) -> bytes:
    """A file that is damaged, says odd things of itself, or is another's."""
    facts, tensors = facts_and_tensors()
    match draw(st.integers(0, 5)):
        case 0:
            return damaged(draw, STATE)
        case 1:
            length = draw(st.integers(0, 2**64 - 1) | st.sampled_from([2**31, 2**63, 10**9]))
            return length.to_bytes(8, "little") + STATE[8:]
        case 2:
            return header(json.dumps({"__metadata__": {"psa": json.dumps(draw(values()))}}).encode())
        case 3:
            size = int.from_bytes(STATE[:8], "little")
            body = changed(draw, json.loads(STATE[8 : 8 + size]))
            return header(json.dumps(body).encode(), STATE[8 + size :])
        case 4:
            kind = draw(st.sampled_from(["f2", "f8", "i1", "i8", "u8", "?", "f4"]))
            name = draw(st.sampled_from([*tensors, "memory/keys", "active/output.bias", "x", "/"]))
            shape = draw(st.lists(st.integers(0, 3), max_size=3))
            tensors[name] = np.zeros(shape, kind)
            return with_facts(facts, tensors)
        case _:
            facts |= {"observed": {"layer_usage": [{"norm": [1.0]}] * 4}, "events": [], "files": {}}
            facts["files"] = {"gradients.e1": {"sha256": "0" * 64, "bytes": 3}}
            kept = {key: facts[key] for key in facts if draw(st.integers(0, 20))}
            return with_facts(changed(draw, kept), tensors, signed=draw(st.integers(0, 9)) > 0)


@fuzzed(30)
@given(states())
def test_states(content: bytes) -> None:
    """One that is read can be written again, looked over and brought home."""
    found = clean(lambda: decode_state(content, "models/x.safetensors"))
    if found is not None:
        assert encode_state(found) == content
        assert found.finished(10) in (True, False)
    with place() as folder:
        store = Store(folder / "models", folder / "results")
        path = folder / "models/a/lkg.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        clean(lambda: list(store.verify()))
        there = {f"models/{some_state().trial.id}/lkg.safetensors": content}
        clean(lambda: import_records(there, "there", Store(folder / "m", folder / "r")))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound file of arrays."""
    path = tmp_path_factory.mktemp("arrays") / "x.arrays.safetensors"
    array_file.write_arrays(
        path, {"index": np.arange(7), "error": np.ones((7, 3), np.float32)}, {"name": "x"}
    )
    return path.read_bytes()


@st.composite
def array_files(draw: st.DrawFn, whole: bytes) -> bytes:
    """One that is damaged, or whose header says odd things."""
    size = int.from_bytes(whole[:8], "little")
    body = json.loads(whole[8 : 8 + size])
    match draw(st.integers(0, 4)):
        case 0:
            return damaged(draw, whole)
        case 1:
            return draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little") + whole[8:]
        case 2:
            part = body[draw(st.sampled_from(["index", "error"]))]
            big = st.integers(-2, 2**65) | st.sampled_from([2**32, 2**62, 2**63, 0, 7])
            part["shape"] = draw(st.lists(big, max_size=4))
            part["data_offsets"] = (
                draw(st.lists(big, max_size=3)) if draw(st.booleans()) else part["data_offsets"]
            )
            return header(json.dumps(body).encode(), whole[8 + size :])
        case 3:
            body["__metadata__"]["psa"] = json.dumps(draw(values()))
            return header(json.dumps(body).encode(), whole[8 + size :])
        case _:
            return header(json.dumps(changed(draw, body)).encode(), whole[8 + size :])


@fuzzed(30)
@given(data=st.data())
def test_array_files(arrays: bytes, data: st.DataObject) -> None:
    """Arrays that are opened can be read to their end."""
    content = data.draw(array_files(arrays))
    with place() as folder:
        path = folder / "x.arrays.safetensors"
        path.write_bytes(content)
        found = clean(lambda: array_file.read_arrays(path))
        if found is not None:
            assert isinstance(found.facts, dict)
            assert all(
                array.nbytes <= len(content) and array.sum() is not None for array in found.arrays.values()
            )


def record() -> dict[str, Any]:
    """A record with all that it may hold."""
    found = some_record()
    found["files"] = {"gradients.e1": {"sha256": "0" * 64, "bytes": 3}}
    found["probes"] = {"layer_usage": {"places": {"norm": ["a"]}, "loops": [{"norm": [1.0]}], "last": {}}}
    return found


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record that is damaged, or says odd things under a right digest."""
    match draw(st.integers(0, 3)):
        case 0:
            return damaged(draw, encode_record(record()))
        case 1:
            return json.dumps(draw(values())).encode()
        case _:
            return encode_record(changed(draw, record()))


@fuzzed(25)
@given(records())
def test_records(content: bytes) -> None:
    """What is read as a record can be looked over, brought home, stored and collected."""
    clean(lambda: decode_record(content, "results/x.json"))
    clean(lambda: decode_trial_record(content, "results/x.json"))
    identity = some_state().trial.id
    with place() as folder:
        store = Store(folder / "models", folder / "results")
        there = {f"results/{identity}.json": content, f"results/{identity}.machine.json": encode_record({})}
        clean(lambda: import_records(there, "there", store))
        path = folder / "results" / f"{identity}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        clean(lambda: list(store.verify()))
        clean(lambda: store.progress([some_state().trial], 5))
        clean(lambda: trials_of(load_records_frame(store)))


def spoilt(draw: st.DrawFn, sound: dict[str, Any]) -> bytes:
    """A file that was sound: damaged, odd, or no JSON at all."""
    match draw(st.integers(0, 3)):
        case 0:
            return damaged(draw, encode_record(sound))
        case 1:
            return json.dumps(draw(values())).encode()
        case _:
            return encode_record(changed(draw, sound))


@st.composite
def sidecars(draw: st.DrawFn) -> bytes:
    """Draw the file of a failure or of a machine: damaged, unusual, or invalid JSON."""
    sound = {"error": "it fell over", "host": "h", "seconds": 1.5}
    return spoilt(draw, sound)


@pytest.mark.slow
@fuzzed(20)
@given(sidecars(), sidecars())
def test_sidecars(failure: bytes, machine: bytes) -> None:
    """What lies beside a record never stops a look at it."""
    trial = some_state().trial
    with place() as folder:
        store = Store(folder / "models", folder / "results")
        path = store.record_path(trial)
        path.parent.mkdir(parents=True)
        path.with_suffix(".failed.json").write_bytes(failure)
        path.with_suffix(".machine.json").write_bytes(machine)
        said = store.failure(trial)
        assert said is not None
        assert said.isprintable()
        assert len(said) <= LONGEST
        found = store.sidecar(trial.id)
        assert found is None or isinstance(found, dict)
        clean(lambda: list(store.verify()))


NAMES: Final = (
    "models/a/lkg.safetensors", "results/a.json", "results/../../x.json", "models/../../x/lkg.safetensors",
    "/models/x/lkg.safetensors", "models//lkg.safetensors", "results/a\0b.json", "models/a\0/lkg.safetensors",
    "results/.json", "models/" + "a/" * 3_000 + "lkg.safetensors", "results/" + "b" * 3_000 + ".json",
    "models/\ud800/lkg.safetensors",
)  # fmt: skip


@fuzzed(20)
@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), states() | records(), max_size=4),
    states(),
)
def test_what_comes_home(there: dict[str, bytes], state: bytes) -> None:
    """Names that lead elsewhere, and contents that are not what their names say."""
    identity = some_state().trial.id
    there |= {f"models/{identity}/lkg.safetensors": state}
    with place() as folder:
        clean(lambda: import_records(there, "there", Store(folder / "models", folder / "results")))


SEARCH: Final = """
study = "ablation"
meta_loops = 20
[base]
arch = "1*4"
[space]
lr = { low = 1e-5, high = 1e-2, log = true }
[search]
samples = 4
"""


@st.composite
def ledgers(draw: st.DrawFn) -> bytes:
    """What a search has tried: damaged, or odd."""
    one = {
        "name": "c0",
        "settings": {"lr": 0.1},
        "status": "finished",
        "accuracies": {"1": [90.0], "2": [91.0]},
    }
    sound = {"search": {}, "configurations": [one, one | {"name": "c1", "status": "failed", "error": "x"}]}
    return spoilt(draw, sound)


@fuzzed(20)
@given(ledgers())
def test_ledgers(content: bytes) -> None:
    """One that is read can be ranked and stored again."""
    with place() as folder:
        path = folder / "search.toml"
        path.write_text(SEARCH)
        found = search.load_search(path)
        results = folder / "results"
        stored = SearchLog(found, results).path
        stored.parent.mkdir(parents=True)
        stored.write_bytes(content)

        def use() -> None:
            ledger = SearchLog(found, results)
            assert len([each.mean for each in ledger.ended]) <= len(ledger.configurations)
            assert ledger.complete in (True, False)
            ledger.save()
            SearchLog(found, results)

        clean(use)


# ---- what comes from elsewhere

KINDS: Final = [bytes([each]) for each in b"01234567xgLKSVMND\0"]


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Names, types, sizes and links of every kind; cut off, damaged, nested, bombs."""
    stream = io.BytesIO()
    layout = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    names = st.sampled_from(
        ["results.txt", "comprehensive_results.json", "../x", "/x", "a/../../x", "C:x", "."]
    )
    with tarfile.open(fileobj=stream, mode="w", format=layout) as archive:
        for _ in range(draw(st.integers(0, 4))):
            name = draw(names | st.text(max_size=120)).replace("\0", "")
            member = tarfile.TarInfo(name.encode(errors="replace").decode())
            body = draw(
                st.binary(max_size=600) | st.just(bytes(200_000)) | st.just(STATE) | st.just(b"98.1\n")
            )
            member.size = len(body)
            member.type = draw(st.just(tarfile.REGTYPE) | st.sampled_from(KINDS))
            member.linkname = draw(st.sampled_from(["", "../../etc/passwd", "results.txt"]))
            if draw(st.integers(0, 5)) == 0:
                member.pax_headers = {
                    draw(st.sampled_from(["size", "path", "linkpath", "GNU.sparse.map", "hdrcharset"])): draw(
                        st.sampled_from(["99999999999", "-1", "x", "../../x", "0,1,2"])
                    )
                }
            with contextlib.suppress(ValueError, tarfile.TarError):
                archive.addfile(member, io.BytesIO(body))
    whole = stream.getvalue()
    for _ in range(draw(st.integers(0, 2))):
        whole = damaged(draw, whole)
    found = gzip.compress(whole, 1, mtime=0)
    match draw(st.integers(0, 5)):
        case 0:
            return damaged(draw, found)
        case 1:
            return gzip.compress(found, 1, mtime=0)
        case 2:
            return found + draw(st.binary(max_size=50))
        case _:
            return found


@fuzzed(40)
@given(tars(), st.sampled_from([None, ("results.txt", "comprehensive_results.json")]))
def test_tars(content: bytes, wanted: tuple[str, ...] | None) -> None:
    """What is read has plain names and fits the limits; nothing is ever written."""
    limits = Limits(bytes=2**20, small=2**16)
    with place():
        found = clean(lambda: read_artifact(content, limits, name="job/model.tar.gz", wanted=wanted)) or {}
    assert sum(map(len, found.values())) <= limits.bytes
    assert not any(name.startswith("/") or ".." in name.split("/") for name in found)


@fuzzed(20)
@given(
    st.one_of(
        tars(),
        values().map(lambda value: tarred({"comprehensive_results.json": json.dumps(value).encode()})),
        st.lists(st.fixed_dictionaries({"bounty": values()})).map(
            lambda value: tarred({"comprehensive_results.json": json.dumps(value).encode()})
        ),
        texts("98.1", "\n").map(lambda text: tarred({"results.txt": text.encode(errors="replace")})),
    )
)
def test_results_of_the_ancestors_jobs(content: bytes) -> None:
    """Percentages, or one word that says why there are none."""
    name = "psa-1x8-none-2025-08-04-19-17-02-730"
    job = LegacyJobName(name, "1*8", "none", (2025,))
    with contextlib.suppress(NoResults):
        assert all(0 <= each <= 100 for each in read_bounties(job, lambda _: content))
    found = collect_results([name], ["1*8"], lambda _: content, lambda _: None)
    assert all(remark.isprintable() and len(remark) <= LONGEST for remark in found.remarks)
    clean(lambda: frame_of_results(found, "simplemlp"))


ENV: Final = (
    "AWS_SAGEMAKER_ROLE", "S3_BUCKET_NAME", "S3_PREFIX", "AWS_REGION", "INSTANCE_TYPE", "USE_SPOT_INSTANCES",
    "MAX_RUN_SECONDS", "AWS_ACCOUNT_ID", "TRAINING_IMAGE",
)  # fmt: skip
SOUND: Final = {
    "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa",
    "S3_BUCKET_NAME": "a-bucket",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}


@fuzzed(6)
@given(
    st.dictionaries(
        st.sampled_from(ENV), texts("a", "-", "/", "arn:aws:iam::", "ml.", ":", "us-east-1"), max_size=4
    ),
    st.binary(max_size=40) | st.just(b""),
)
@example({"MAX_RUN_SECONDS": "9" * 5_000}, b"")
def test_env_files(changes: dict[str, str], tail: bytes) -> None:
    """No secret is said, whatever else is wrong."""
    lines = "".join(f"{name}={value}\n" for name, value in {**SOUND, **changes}.items())
    with place() as folder, pytest.MonkeyPatch.context() as patch:
        for name in (*ENV, *SOUND, "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        (folder / ".env").write_bytes(lines.encode(errors="replace") + tail)
        found = clean(lambda: read_settings(folder))
        assert SECRET not in repr(found)


@st.composite
def price_tables(draw: st.DrawFn) -> bytes:
    """A table with odd values, or damaged."""
    body: dict[str, Any] = {
        "region": "us-east-1", "storage": 0.023, "spot": [0.3, 0.5],
        "instances": {"ml.c5.xlarge": {"dollars": 0.2, "vcpus": 4, "gpus": 0}},
    }  # fmt: skip
    body = changed(draw, body) if draw(st.integers(0, 3)) else body
    lines = [
        "dated = 2025-06-01",
        *(f"{json.dumps(str(key))} = {dumped(each)}" for key, each in body.items()),
    ]
    content = "\n".join(lines).encode(errors="replace")
    return damaged(draw, content) if draw(st.integers(0, 2)) == 0 else content


@fuzzed(30)
@given(price_tables())
def test_price_tables(content: bytes) -> None:
    """Every price that is read is a number of dollars."""
    with place() as folder:
        path = folder / "prices.toml"
        path.write_bytes(content)
        found = clean(lambda: price_table(path))
        if found is not None:
            assert all(0 <= price.cost(3600) < np.inf for price in found.instances.values())


LINE: Final = "Loop 3/100 (Global: 103) | Current: 97.10% | LKG: 97.30% | Bounty: 97.30%"


@fuzzed(30)
@given(
    texts(
        LINE,
        "\n",
        " ",
        "Loop ",
        "1/3",
        "(Global: 1)",
        "|",
        "x.py:12 ",
        "Current: 1.00%",
        "Final Test Accuracy: 9.00%",
    ),
    st.binary(max_size=30),
    st.sampled_from(["psa-1x8-none-1", "psa-9999x65536-none-1", "psa-1x1-full-" + "9" * 40, "other"]),
)
def test_job_logs(text: str, tail: bytes, job: str) -> None:
    """Whole lines, parts of lines, and lines broken anywhere."""
    parse_runs(text)
    with place() as folder:
        (folder / job).mkdir()
        (folder / job / "algo-1-123.log").write_bytes(text.encode(errors="replace") + tail)
        clean(lambda: frame_of_logs(read_logs(folder), "simplemlp"))


DESCRIBED: Final = {
    "TrainingJobName": "psa-1", "TrainingJobStatus": "Completed", "BillableTimeInSeconds": 10,
    "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1}, "WarmPoolStatus": {"Status": "x"},
    "TrainingJobArn": "arn:aws:sagemaker:us-east-1:1:x",
}  # fmt: skip


@st.composite
def job_lists(draw: st.DrawFn) -> bytes:
    """Names, or descriptions."""
    match draw(st.integers(0, 2)):
        case 0:
            return draw(texts("psa-1", "\n", "#", "[", "{")).encode(errors="replace")
        case 1:
            return json.dumps([changed(draw, DESCRIBED)]).encode()
        case _:
            return damaged(draw, json.dumps({"TrainingJobs": [DESCRIBED]}).encode())


@fuzzed(30)
@given(job_lists(), values())
def test_lists_of_jobs(content: bytes, value: Any) -> None:
    """As files, and as what AWS answers."""
    clean(lambda: parse_description(value, "jobs"))
    with place() as folder:
        path = folder / "jobs.txt"
        path.write_bytes(content)
        clean(lambda: read_jobs(path))


def test_the_digest_of_a_canonical_text_is_stable() -> None:
    """The helpers above sign what they make: an unchanged state stays sound."""
    facts, tensors = facts_and_tensors()
    assert decode_state(with_facts(facts, tensors), "x").loops == 3
    assert json.loads(canonical_json(facts)) is not None


# ---- what longer runs have found


def refused(call: Callable[[], object]) -> None:
    """One line, at once."""
    assert clean(call) is None


GRIDS_FOUND: Final = {
    "a key of very many parts takes minutes": ".".join(["a"] * 60_000) + " = 1",
    "a number of very many digits": "meta_loops = " + "9" * 5_000,
    "the same in another base, which no limit of Python's stops": "meta_loops = 0x" + "f" * 5_000,
    "tables in tables": "\n".join(f"[{'.'.join(['a'] * depth)}]" for depth in (20, 31)) + "\nb.c.d = [[1]]",
    "seeds that fill the memory": f'seeds = "{",".join(f"{at}00000..{at + 1}99999" for at in range(9_000))}"',
    "the last of many values is there twice": f"axes.lr = [{','.join(map(str, range(120_000)))}, 119999]",
    "stages without end": "[[stages]]\nname = 'a'\n" * 20_000,
    "a file whose name is too long": f"[axes]\nlr = '@{'x' * 5_000}'",
    "a file that never ends": "[axes]\nlr = '@/dev/zero'",
    "a key that is too long to be told": f"{'k' * 100_000} = 1",
}


@pytest.mark.parametrize("what", GRIDS_FOUND)
def test_grids_that_were_found(what: str) -> None:
    """They hung, filled the memory, or ended with another exception."""
    refused(lambda: written_grid(GRIDS_FOUND[what]))


def written_grid(text: str) -> grid.Grid:
    """A text, read as a grid."""
    with place() as folder:
        path = folder / "grid.toml"
        path.write_text(text)
        return grid.load_grid(path)


BAD_NAMES: Final = (
    "../../x", "/etc/x", "a/b", "a\0b", "a" * 41, "..", "", "A", "con", "nul", "com1", "lpt9", "a b", "-a",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    """It leads elsewhere, is too long, or no folder could be called so on Windows."""
    refused(lambda: grid.load_grid({"name": name}))


def test_every_one_of_very_many_seeds_may_be_selected() -> None:
    """Comparing each with each would take an hour."""
    found = clean(lambda: grid.load_grid({"seeds": "0..9999", "base": {"arch": "1*1"}}, only="seed=0..9999"))
    assert found is not None
    assert len(found.trials) == 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": []},
        {"shape": [2**64, 7]},
        {"shape": [2**32, 2**32]},
        {"shape": [2**63, 0], "data_offsets": [0, 0]},
        {"shape": [-7, -1]},
        {"shape": [6]},
        {"dtype": []},
    ],
)
def test_array_files_that_were_found(changes: dict[str, Any], arrays: bytes, tmp_path: Path) -> None:
    """Sizes that no file has."""
    size = int.from_bytes(arrays[:8], "little")
    body = json.loads(arrays[8 : 8 + size])
    body["index"] |= changes
    path = tmp_path / "x.arrays.safetensors"
    path.write_bytes(header(json.dumps(body).encode(), arrays[8 + size :]))
    refused(lambda: array_file.read_arrays(path))


KEPT: Final = {"sha256": "0" * 64, "bytes": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"horizon": "x"},
        {"loops": 3.0},
        {"devices": 5},
        {"best_correct": []},
        {"files": []},
        {"files": {"x": {}}},
        {"files": {"../../x": KEPT}},
        {"files": {"a/b": KEPT}},
        {"events": [{}]},
        {"observed": {"x": 4}},
        {"history": some_state().history | {"correct": ["a", [], None]}},
        {"nonsense": 1},
    ],
)
def test_states_that_were_found(changes: dict[str, Any]) -> None:
    """A right digest, which anybody can make, under what no psa would say."""
    facts, tensors = facts_and_tensors()
    refused(lambda: decode_state(with_facts(facts | changes, tensors), "models/x.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"built": {}},
        {"built": {"family": "resmlp", "arch": "[1*1]", "parameters": 10**400}},
        {"loops": 7},
        {"events": [{}]},
        {"files": {"../../x": KEPT}},
        {"files": {"a/b": KEPT}},
        {"samples": record()["samples"] | {"test": 10**400}},
        {"\x1b[2J" * 400: 1},
    ],
)
def test_records_that_were_found(changes: dict[str, Any]) -> None:
    """Those of trials that no report could read."""
    refused(lambda: decode_trial_record(encode_record(record() | changes), "results/x.json"))


def test_results_and_prices_beyond_all_numbers() -> None:
    """Whole numbers too large to be divided."""
    content = tarred({"comprehensive_results.json": json.dumps([{"bounty": 10**400}]).encode()})
    name = "psa-1x8-none-2025-08-04-19-17-02-730"
    with pytest.raises(NoResults):
        read_bounties(LegacyJobName(name, "1*8", "none", (2025,)), lambda _: content)
    with place() as folder:
        path = folder / "prices.toml"
        path.write_text(
            f'dated = 2025-06-01\nregion = "x"\nstorage = {10**400}\n[instances]\n"ml.a.b" = {{}}\n'
        )
        refused(lambda: price_table(path))


def test_why_a_trial_failed_is_told_in_one_line(tmp_path: Path) -> None:
    """Whatever another machine wrote of it."""
    store = Store(tmp_path / "models", tmp_path / "results")
    store.write_failure(some_state().trial, "a\n\x1b[2J" * 1_000)
    said = store.failure(some_state().trial)
    assert said is not None
    assert said.isprintable()
    assert len(said) <= LONGEST
