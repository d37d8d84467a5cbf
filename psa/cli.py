"""The commands people type: which there are, and what every one of them does with a mistake or a stop.

Planning imports no torch, so that help and mistakes answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError

from psa import __version__
from psa.commands.clean import clean, clean_all
from psa.commands.dataset import analyze_dataset
from psa.commands.train import train
from psa.commands.verify import verify
from psa.errors import UserError

EXIT_INTERNAL: Final = 1
EXIT_USER_ERROR: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141


def _command(name: str, function: Any) -> App:
    app = App(name=name, version=__version__, help_format="plaintext")
    app.default(function)
    return app


TRAIN: Final = _command("train", train)
CLEAN: Final = _command("clean", clean)
CLEAN_ALL: Final = _command("clean-all", clean_all)
ANALYZE_DATASET: Final = _command("analyze-dataset", analyze_dataset)

PSA: Final = App(
    name="psa",
    help="Train very many small neural networks at once, as a scientific study.",
    version=__version__,
    help_format="plaintext",
)
PSA.command(TRAIN)
PSA.command(_command("verify", verify))
PSA.command(CLEAN)
PSA.command(_command("data", analyze_dataset))


def run(app: App, arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. A mistake is one line on standard error and exit code 2.

    `poetry run train -- --arch x` hands the `--` on, so a leading one is dropped.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens[:1] == ["--"]:
        tokens = tokens[1:]
    debug = "--debug" in tokens
    _log_to_stderr(debug)
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _mistake(f"{' '.join(str(error).split())} See `{_shown_name(app)} --help`")
    except UserError as error:
        return _mistake(str(error))
    except KeyboardInterrupt:
        return _said("stopped; nothing that was stored is lost", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left; the interpreter must not fail once more while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())[:300]
        return _said(
            f"unexpected {type(error).__name__}: {reason}. What was stored is untouched; run the command "
            "again with --debug to see where it happened",
            EXIT_INTERNAL,
        )
    return code if isinstance(code, int) else 0


def _shown_name(app: App) -> str:
    return " ".join(app.name)


def _mistake(message: str) -> int:
    return _said(f"error: {message}", EXIT_USER_ERROR)


def _said(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


def _log_to_stderr(debug: bool) -> None:
    logger = logging.getLogger("psa")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)


def main() -> None:
    """`psa`."""
    sys.exit(run(PSA))


def train_command() -> None:
    """`train`."""
    sys.exit(run(TRAIN))


def clean_command() -> None:
    """`clean`."""
    sys.exit(run(CLEAN))


def clean_all_command() -> None:
    """`clean-all`."""
    sys.exit(run(CLEAN_ALL))


def analyze_dataset_command() -> None:
    """`analyze-dataset`."""
    sys.exit(run(ANALYZE_DATASET))
