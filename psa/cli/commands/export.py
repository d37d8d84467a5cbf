"""`psa export-gradients` and `psa export-model`: gradients and networks, written out for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from rich.table import Table

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, DataDir, ModelDir, NumberOption, PluginFiles, option
from psa.cli.output.activity import activity
from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.core.formatting import format_bytes, pluralize
from psa.core.plugins.loading import load_plugins

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


def export_model(
    trial: Annotated[
        str, Parameter(help="Id of a trial, such as smoke/resmlp-1x4/none/s00-0a1b2c, or a state file.")
    ],
    /,
    *,
    format: Annotated[  # noqa: A002 - it is the name of the option
        Literal["safetensors", "torchscript", "onnx"],
        Parameter(help="Tensors by name, a program for torch.jit.load, or a graph (needs the extra onnx)."),
    ] = "safetensors",
    plugin: PluginFiles = (),
    model_dir: ModelDir = Path("models"),
    output: Annotated[
        Path | None, option(OUTPUT_FILES, "File to write. [default: results/exported/ID with its suffix]")
    ] = None,
) -> int:
    """Write the network of a trial as a file for other programs.

    The network has the weights of the LKG. Its input is a batch of samples [batch, features], scaled like the
    data of the trial; its output is logits [batch, classes]. From Python, psa.load returns the network.

    Example: psa export-model MODEL --format torchscript
    """
    from psa.engine.model_export import MODEL_SUFFIXES, exported_model

    load_plugins(plugin)
    found, content = exported_model(trial, format, model_dir=model_dir)
    path = output or Path("results/exported") / f"{found.id}{MODEL_SUFFIXES[format]}"
    write_atomically(path, content)
    print_line(console(), f"{path} ({format_bytes(len(content))})")
    return 0
