"""`psa export-gradients`: the gradients that a probe kept as factors, written out for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from rich.table import Table

from psa.cli.console import console
from psa.cli.options import DataDir, NumberOption
from psa.core.errors import UserError
from psa.core.formatting import format_bytes, pluralize

if TYPE_CHECKING:  # torch is imported in functions, not while options are read
    from psa.analysis.gradients.export import Export

LIMIT: Final = 1.0  # GB
_SHOWN: Final = 12  # files named one by one


def export_gradients(
    file: Annotated[Path, Parameter(help="A file of gradients: MODELS/ID/lkg.gradients_online-1.arrays...")],
    /,
    *,
    by: Annotated[Literal["epoch", "batch"], Parameter(help="One file per parameter, or per batch too.")] = (
        "epoch"
    ),
    parameters: Annotated[
        tuple[str, ...],
        Parameter(help="Only these, such as output.weight.", consume_multiple=True, negative=""),
    ] = (),
    limit: Annotated[NumberOption, Parameter(help="GB above which it is refused without --yes.")] = LIMIT,
    yes: Annotated[bool, Parameter(negative="", help="Write it, however large.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would be written, and stop.")] = False,
    data_dir: DataDir = Path("dataset"),
    output_dir: Annotated[Path, Parameter(help="Folder of the files.")] = Path("results/gradients"),
) -> int:
    """Write the gradients of samples out, all numbers.

    A file {parameter}_epoch_{e}.safetensors for each parameter. What it takes is said first: a layer 784 ->
    512 of 60,000 samples is 96 GB; above --limit it is refused.

    Example: psa export-gradients FILE --parameters output.weight
    """
    from psa.analysis.gradients.export import check_free, planned, write_export
    from psa.analysis.gradients.file import read_gradients

    if not limit >= 0:  # nor is nan, which nothing exceeds
        raise UserError(f"--limit must be a size in GB, got {limit:g}", "Choose 0 or more")
    kept = read_gradients(file, data_dir)
    exports, out = planned(kept, by, parameters), console()
    total = sum(each.nbytes for each in exports)
    out.print(_table(exports))
    out.print(
        f"{pluralize(len(exports), 'file')}, {format_bytes(total)}; as factors "
        f"{format_bytes(file.stat().st_size)}"
    )
    if dry_run:
        return 0
    if total > limit * 1e9 and not yes:
        raise UserError(
            f"that is more than {limit:g} GB",
            "Name fewer --parameters, raise --limit, or say --yes; "
            "psa.analysis.gradients.file.read_gradients needs no export",
        )
    check_free(kept, exports, output_dir)
    _check_room(output_dir, total)
    with out.status("writing") as shown:
        for number, each in enumerate(exports, 1):
            shown.update(f"writing {number:,} of {len(exports):,}: {each.name}")
            write_export(kept, each, output_dir)
    out.print(f"Written to {output_dir}", markup=False, soft_wrap=True)
    return 0


def _table(exports: list[Export]) -> Table:
    table = Table()
    for heading in ("file", "samples", "shape of one", "size"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for each in exports[:_SHOWN]:
        shape = " x ".join(map(str, each.shape))
        table.add_row(each.name, f"{each.samples:,}", shape, format_bytes(each.nbytes))
    if len(exports) > _SHOWN:
        table.add_row(f"and {len(exports) - _SHOWN:,} more", "", "", "")
    return table


def _check_room(folder: Path, total: int) -> None:
    """Raise UserError where the disk has no room for it."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if total > free:
        raise UserError(
            f"{format_bytes(total)} are to be written and {folder} has {format_bytes(free)} free",
            "Write less",
        )
