"""Train one pack that a file holds, or take packs from standard input: the entry of a worker process."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psa.core.errors import EXIT_USER_ERROR, Interrupted, UserError
from psa.core.stop import StopRequest
from psa.execution.machine import Machine
from psa.execution.worker.protocol import EXIT_INTERRUPTED, received_pack
from psa.execution.worker.run import RunHooks, run_unlocked
from psa.execution.worker.server import serve
from psa.storage.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m psa.execution.worker`. Return 0 when done, 2 after a user error, 75 to be run again.

    75: the worker was interrupted with everything saved, or other processes hold trials of the pack.
    """
    parser = argparse.ArgumentParser(
        prog="python -m psa.execution.worker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("pack", type=Path, nargs="?", help="a pack as JSON")
    parser.add_argument(
        "--serve", action="store_true", help="take packs from standard input (psa.execution.worker.server)"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="holds models/ and results/")
    parser.add_argument("--data-dir", type=Path, default=None, help="default: ROOT/dataset")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], default=None)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    machine = Machine(options.data_dir or options.root / "dataset", options.device, options.threads)
    if options.pack is None and not options.serve:
        parser.error("name a pack, or --serve")
    try:
        if options.serve:
            return serve(machine)
        pack = received_pack(_read_json(options.pack), str(options.pack))
        store = Store(options.root / "models", options.root / "results")
        _, elsewhere = run_unlocked(pack, store, machine, RunHooks(stop=StopRequest()))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USER_ERROR
    except Interrupted:
        sys.stderr.write("stopped as asked; every finished loop is saved\n")
        return EXIT_INTERRUPTED
    if elsewhere:
        sys.stderr.write(
            f"{elsewhere} of {len(pack.trials)} trials are locked by another process; nothing is lost, "
            "run this again once it has ended\n"
        )
        return EXIT_INTERRUPTED
    return 0


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "Name a pack file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON: {error}", "Name a pack file") from error


if __name__ == "__main__":
    sys.exit(main())
