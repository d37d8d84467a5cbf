"""`psa export-model`: a trained network as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, ModelDir, PluginFiles, option
from psa.core.files import write_atomically
from psa.core.formatting import format_bytes
from psa.plugins.loading import load_plugins


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

    It has the last known good weights. Its input is a batch of samples [batch, features], scaled as the
    trial's data were; its output is logits [batch, classes]. From Python, psa.load returns the network.

    Example: psa export-model MODEL --format torchscript
    """
    from psa.engine import model_export

    load_plugins(plugin)
    found, content = model_export.export_model(trial, format, model_dir=model_dir)
    path = output or Path("results/exported") / f"{found.id}{model_export.SUFFIXES[format]}"
    write_atomically(path, content)
    print_line(console(), f"{path} ({format_bytes(len(content))})")
    return 0
