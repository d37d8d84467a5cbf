"""A shell script that trains a whole grid again, architecture by architecture."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from psa.core.errors import UserError
from psa.experiments.grid import Grid

_SCRIPT: Final = """\
#!/bin/sh
# {what}.
# Start it in the folder that holds {grid}; PSA names the program if it is not `psa`:
#   PSA='.venv/bin/psa' sh run_reproduction.sh
# Whatever stops it, start it again: what is done is not trained again. Further words go to every sweep:
#   sh run_reproduction.sh meta_loops=1 --workers 2
set -u

grid={quoted}
number=0
failed=0

if [ ! -f "$grid" ]; then
    echo "error: $grid does not exist here; start this in the folder that holds it" >&2
    exit 2
fi

# reproduce ARCH WORD...
reproduce() {{
    arch=$1
    shift
    number=$((number + 1))
    echo "[$number/{count}] $arch"
    code=0
    ${{PSA:-psa}} sweep "$grid" {seeds}"$@" --only "arch=$arch" || code=$?
    case $code in
        0) ;;
        1) failed=$((failed + 1)) ;; # some trials failed: the others go on
        *) exit "$code" ;;           # stopped, or a mistake
    esac
}}

{calls}

echo "{count} architectures, $failed with failed trials"
[ "$failed" -eq 0 ]
"""


def reproduction_script(grid: Grid, path: str) -> str:
    """Return the script for a grid that is stored at `path`. Its exit code: 0 if all trials are done, 1 if
    trials failed, else that of the sweep that was stopped. Raises UserError for a grid with stages.
    """
    if len(grid.stages) > 1:
        raise UserError(
            f"{path} must be run as a whole: its stages promote by a ranking of all trials",
            f"Run psa sweep {path}",
        )
    archs = list(dict.fromkeys(str(trial.model.arch) for trial in grid.trials))
    return _SCRIPT.format(
        what=f"Trains the {len(grid.trials):,} trials of {path} for {grid.meta_loops:,} meta-loops, one "
        "sweep per architecture",
        grid=path,
        quoted=shlex.quote(path),
        count=len(archs),
        seeds=_seeds(sorted({trial.seed for trial in grid.trials})),
        calls="\n".join(f'reproduce {shlex.quote(arch)} "$@"' for arch in archs),
    )


def _seeds(seeds: Sequence[int]) -> str:
    """Return `seeds=0..9 `, or nothing for seeds with gaps, which the grid lists itself."""
    is_range = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds={seeds[0]}..{seeds[-1]} " if is_range else ""
