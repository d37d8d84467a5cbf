"""`psa export-gradients`: the gradients that a probe kept as factors, written out for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from rich.table import Table

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, DataDir, NumberOption, option
from psa.cli.output.activity import activity
from psa.core.errors import UserError
from psa.core.formatting import format_bytes, pluralize

if TYPE_CHECKING:  # torch is imported in functions, not while options are read
    from psa.analysis.gradients.export import Export

LIMIT: Final = 1.0  # GB
_SHOWN: Final = 12  # files named one by one


def export_gradients(
    file: Annotated[Path, Parameter(help="File of gradients: MODELS/ID/lkg.gradients_online-1.arrays...")],
    /,
    *,
    by: Annotated[
        Literal["epoch", "batch"],
        Parameter(help="Write one file per parameter, or one per parameter and batch."),
    ] = ("epoch"),
    parameters: Annotated[
        tuple[str, ...],
        Parameter(
            help="Export only these parameters, such as output.weight.", consume_multiple=True, negative=""
        ),
    ] = (),
    limit: Annotated[
        NumberOption, Parameter(help="Maximum total size in GB, unless --yes is given.")
    ] = LIMIT,
    yes: Annotated[bool, Parameter(negative="", help="Write files of any size.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Print what would be written, then exit.")] = False,
    data_dir: DataDir = Path("dataset"),
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the files.")] = Path("results/gradients"),
) -> int:
    """Export stored gradients of samples as full tensors.

    Writes a file {parameter}_epoch_{e}.safetensors for each parameter. The total size is printed first: a
    layer 784 -> 512 with 60,000 samples takes 96 GB. A size above --limit is refused.

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
            f"the export must be at most {limit:g} GB",
            "Name fewer --parameters, raise --limit, or confirm with --yes; "
            "psa.analysis.gradients.file.read_gradients needs no export",
        )
    check_free(kept, exports, output_dir)
    _check_room(output_dir, total)
    with activity(out, "writing") as show:
        for number, each in enumerate(exports, 1):
            show(f"writing {number:,} of {len(exports):,}: {each.name}")
            write_export(kept, each, output_dir)
    print_line(out, f"Written to {output_dir}")
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
            f"{folder} must have {format_bytes(total)} free, has {format_bytes(free)}",
            "Write less",
        )
