"""The files of a data set that a worker elsewhere needs, for backends that send them there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from psa.data import download
from psa.data.datasets import DATASETS
from psa.data.named import named_table, stored_name
from psa.data.own import TABLES_FOLDER, own_table, table_file
from psa.specs.data import DataSpec


def data_files(specs: Iterable[DataSpec], data_dir: Path) -> dict[str, bytes]:
    """Return the content of every file of these data sets, by its path in a data folder.

    Every file carries its proof: workers compare the MD5s of published files, and the SHA-256 of the others.
    Raises UserError and CorruptFileError.
    """
    first = {spec.name if spec.content is None else spec.content.sha256: spec for spec in specs}
    found: dict[str, bytes] = {}
    for _, spec in sorted(first.items()):
        found |= _files_of(spec, data_dir)
    return found


def _files_of(spec: DataSpec, data_dir: Path) -> dict[str, bytes]:
    if spec.content is not None:
        return {f"{TABLES_FOLDER}/{table_file(spec.content.sha256)}": own_table(spec, data_dir).encoded()}
    if spec.name in DATASETS:
        files = download.download_dataset(DATASETS[spec.name], data_dir)
        return {f"{spec.name}/{file}": content for file, content in files.items()}
    table = named_table(spec.name, data_dir, download.quiet)
    return {f"{spec.name}/{stored_name(spec.name)}": table.encoded()}
