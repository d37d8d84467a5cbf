"""The place of each stored file: a path is compared with the trial that the file holds.

results/<id>.json, and beside it what differs between machines; models/<id>/lkg.safetensors, and beside it the
generation before it and arrays; models/<dataset>_lkg.safetensors, the checkpoint of `train`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psa.core.errors import CorruptFileError
from psa.core.files import unreadable
from psa.core.formatting import join_names
from psa.core.parsing import NAME_PATTERN
from psa.specs.trial import Trial
from psa.storage.array_file import ARRAY_SUFFIX as ARRAYS

STATE_NAME: Final = "lkg.safetensors"
SIDECAR_SUFFIX: Final = ".machine.json"
FAILURE_SUFFIX: Final = ".failed.json"
BESIDE: Final = (SIDECAR_SUFFIX, FAILURE_SUFFIX)  # how files end that lie beside records
PUBLISHED: Final = "published"  # in the results folder: a results folder of its own, which comes with psa
TRAIN: Final = "train"  # the study of the trials of `train`, whose states lie under one name
WORKSPACE_FILE: Final = ".home"  # in the folder of states: its id in the names of jobs elsewhere
QUEUES_FILE: Final = ".queues"  # beside it: the queues of AWS Batch that hold its jobs
SLURM_FOLDER: Final = ".slurm"  # beside it: a folder of each job array
_RAY: Final = ".ray"  # in the folder of states: copies that a sweep on Ray works with
_DEPTH: Final = 4  # parts of an id: study, network, mode, seed and digest
_RECORD: Final = re.compile(r"s[0-9]{2,}-[0-9a-f]{6}\.json")
_LIKE_RECORD: Final = re.compile(r"s[0-9]+-[0-9a-f]{6}.*\.json")
_OF_A_STATE: Final = re.compile(r"lkg(\.previous)?\.safetensors")
_OF_TRAIN: Final = re.compile(r"(?P<data>[a-z0-9-]+)_lkg(\.s(?P<seed>[0-9]+))?(\.previous)?\.safetensors")
_SET_ASIDE: Final = re.compile(r".*\.damaged(-[0-9]+)?\.safetensors")
_SHOWN: Final = 3  # files that a warning names one by one
_LEAVE: Final = "Move it there, or remove it where that place is taken, and run the same command again"


class Misplaced(CorruptFileError):
    """A stored file that is sound, and does not belong where it lies."""


def is_like_record(name: str) -> bool:
    """Return whether a name is that of a record, of what lies beside one, or of a copy of either."""
    return _LIKE_RECORD.search(name) is not None


def is_copy_or_record(name: str) -> bool:
    """Return whether a name is that of a record or of a copy of one."""
    return is_like_record(name) and not is_beside(name)


def is_record_name(name: str) -> bool:
    """Return whether a name is one that psa gives a record."""
    return _RECORD.fullmatch(name) is not None


def is_beside(name: str) -> bool:
    """Return whether a name is that of a file beside a record, copies included."""
    return any(part in name for part in (".machine", ".failed"))


def is_state(name: str) -> bool:
    """Return whether a name is that of a state of either generation, or of one set aside as damaged."""
    return name.endswith(".safetensors") and not name.endswith(ARRAYS)


def is_arrays(name: str) -> bool:
    """Return whether a name is that of arrays beside a state."""
    return name.endswith(ARRAYS)


def is_set_aside(name: str) -> bool:
    """Return whether a name is that of a damaged state which a later save has put out of the way."""
    return _SET_ASIDE.fullmatch(name) is not None


def is_record_place(path: Path, results: Path) -> bool:
    """Return whether a path is one of a record, whatever lies there."""
    parts = path.relative_to(results).parts
    return len(parts) == _DEPTH and re.match(NAME_PATTERN, parts[0]) is not None and is_record_name(parts[-1])


def is_stray(path: Path, results: Path) -> bool:
    """Return whether a file like a record is a copy where psa keeps none."""
    if is_record_place(path, results):
        return False
    shipped = results / PUBLISHED
    return not path.is_relative_to(shipped) or not is_record_place(path, shipped)


def searched(results: Path, studies: Sequence[str]) -> list[Path]:
    """Return the paths to search for records of some studies: of all, where none is named.

    Their folders, what has the name of no study (copies that other programs make), and in each other folder
    those of their names.
    """
    if not studies:
        return [results]
    found = []
    for path in _entries(results):
        if path.name in studies or re.match(NAME_PATTERN, path.name) is None:
            found.append(path)
        elif path.name != PUBLISHED:
            found += [path / study for study in studies if (path / study).is_dir()]
    return found


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, in a fixed order; nothing where there is none. Raises UserError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(error, f"the folder {folder}") from error


def check_record(path: Path, results: Path, trial: str) -> None:
    """Raise Misplaced where the record of a trial (by id) does not lie in its place."""
    if str(path) != f"{results}/{trial}.json" and path != (place := results / f"{trial}.json"):
        raise Misplaced(
            f"{path} holds the record of another trial, {trial}, which belongs in {place}", _LEAVE
        )


def check_digest(path: Path | str, held: tuple[str, str], trial: Trial, option: str) -> None:
    """Raise Misplaced where a file holds another trial than `trial`. held: id and digest of the one it holds.

    An id holds the first 6 digits of a digest: of some thousand settings of one network, mode and seed two
    may share it.
    """
    name, digest = held
    if digest == trial.digest:
        return
    if name == trial.id:
        raise Misplaced(
            f"{path} holds another trial of the same id, {name}: their digests begin alike "
            f"({digest[:12]}, {trial.digest[:12]})",
            f"Give the grid another name, or use another {option}",
        )
    raise Misplaced(
        f"{path} must hold {trial.id}, got {name}", f"Move it to the place of {name}, or remove it"
    )


def check_state(path: Path, models: Path, trial: Trial) -> None:
    """Raise Misplaced where the state of a trial lies neither in its place nor in that of `train`."""
    place = models / trial.id / STATE_NAME
    own = path.parent == place.parent and _OF_A_STATE.fullmatch(path.name) is not None
    if not own and not _is_of_train(path.name, trial) and path.relative_to(models).parts[0] != _RAY:
        raise Misplaced(
            f"{path} holds the state of another trial, {trial.id}, which belongs in {place}", _LEAVE
        )


def check_arrays(path: Path, models: Path, trial: Trial, name: str) -> None:
    """Raise Misplaced where the arrays of a trial do not lie beside its state."""
    place = models / trial.id / f"{Path(STATE_NAME).stem}.{name}{ARRAYS}"
    if path != place and path.relative_to(models).parts[0] != _RAY and trial.study != TRAIN:
        raise Misplaced(f"{path} holds arrays of another trial, {trial.id}, which belong in {place}", _LEAVE)


def trial_folder(path: Path, root: Path, place: Path) -> Path | None:
    """Return the folder inside `root` in which `path` is in its place, as if `root` were that folder.

    place: where it belongs in `root`. None where there is no such folder, or where something lies in the
    place itself: then it is a copy.
    """
    parts, tail = path.relative_to(root).parts, place.relative_to(root).parts
    inner = parts[: -len(tail)]
    if parts[-len(tail) :] != tail or any(part.startswith(".") for part in inner):
        return None
    return root.joinpath(*inner) if inner == (PUBLISHED,) or not place.exists() else None


def is_named_by_train(name: str) -> bool:
    """Return whether a file name is one that `train` gives the state of a trial, of whatever data."""
    return _OF_TRAIN.fullmatch(name) is not None


def _is_of_train(name: str, trial: Trial) -> bool:
    """Return whether a name is one that `train` gives the state of this trial."""
    found = _OF_TRAIN.fullmatch(name)
    return (
        found is not None
        and trial.study == TRAIN
        and found["data"] == trial.data.name
        and (found["seed"] is None or int(found["seed"]) == trial.seed)
    )


def strays_line(paths: Sequence[Path], results: Path) -> str:
    """Describe files that look like records and lie where psa keeps none, in one line."""
    some = [str(path.relative_to(results)) for path in paths]
    return (
        f"{results} holds {len(paths):,} copies of records where psa keeps none, which are not counted: "
        f"{join_names(some, _SHOWN)}. Move them out of {results}, or remove them; `psa verify` names each"
    )
