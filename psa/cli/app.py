"""The console commands, and their common handling of errors and interruptions.

Planning imports no torch, so that help and errors appear at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NoReturn

from cyclopts import App, Group, Parameter

from psa import __version__
from psa.cli.output.failure import EXPECTED, print_failure
from psa.core import process
from psa.core.errors import UserError
from psa.core.extras import import_cloud


def _shown_default(value: Any) -> str | None:
    """Return a default as it is typed, for the help; None, which shows nothing, for an empty one."""
    if value is None or value in ((), ""):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Interruptions are handled here: cyclopts would end the process without a message.
_SHARED: Final[dict[str, Any]] = {
    "version": __version__,
    "help_format": "plaintext",
    "suppress_keyboard_interrupt": False,
    "default_parameter": Parameter(show_default=_shown_default),
}


def command(name: str, function: Callable[..., int], group: str | None = None) -> App:
    """Return a function as a command. group: the heading under which `psa --help` lists it."""
    # The lines of a docstring are as long as those of the source; the terminal breaks paragraphs anew.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    heading = () if group is None else _GROUPS[group]
    order = list(_COMMANDS).index(name) if name in _COMMANDS else None  # in `psa --help`
    app = App(name=name, help=text, help_epilogue="", group=heading, sort_key=order, **_SHARED)
    app.default(function)
    return app


# name -> its module in psa.cli.commands, or elsewhere by its full name, and its heading (None: not a
# subcommand of `psa`), in the order in which they are used. Commands are imported on demand, since importing
# all of them is slow.
_COMMANDS: Final = {
    "train": ("train", "Train"),
    "sweep": ("sweep", "Train"),
    "search": ("search", "Train"),
    "plan": ("plan", "Inspect"),
    "status": ("status", "Inspect"),
    "verify": ("verify", "Inspect"),
    "data": ("dataset", "Inspect"),
    "report": ("report", "Results"),
    "bundle": ("bundle", "Results"),
    "export-gradients": ("export", "Results"),
    "export-model": ("export", "Results"),
    "clean": ("clean", "Results"),
    "check": ("cloud.commands.check", "Remote"),
    "prices": ("cloud.commands.prices", "Remote"),
    "rehearse": ("cloud.emulator.command", "Remote"),
    "fetch": ("fetch", "Remote"),
    "clean-all": ("clean", None),
    "analyze-dataset": ("dataset", None),
}
WATCH_SECONDS: Final = 2.0  # of `psa status --watch`
_GROUPS: Final = {
    name: Group(name, sort_key=number)
    for number, name in enumerate(("Train", "Inspect", "Results", "Remote", "Options"))
}
_FIRST_STEPS: Final = """Start: psa train --arch "[2*64]" --ablation-mode hidden --meta-loops 10
       psa sweep reproduction/smoke.toml
       psa report smoke
More:  psa COMMAND --help"""


@functools.cache
def app_of(name: str) -> App:
    """Return the command of that name."""
    where, group = _COMMANDS[name]
    function = "analyze_dataset" if name == "data" else name.replace("-", "_")
    return command(name, imported(where if "." in where else f"psa.cli.commands.{where}", function), group)


def imported(module: str, function: str) -> Callable[..., int]:
    """Return the function of a command, or a substitute if its module cannot be imported."""
    try:
        where = import_cloud(module) if module.startswith("cloud.") else importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - `psa --help` lists the others, and running this one says why
        return _unavailable(error)
    return getattr(where, function)  # type: ignore[no-any-return]


def _unavailable(error: Exception) -> Callable[..., int]:
    """Return a substitute for a command that cannot be imported: it is listed, and raises the error."""

    def refuse(*_: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
        raise error

    refuse.__doc__ = "Not available here: run it to see why."
    return refuse


def __getattr__(name: str) -> App:
    """Return a command by an importable name: TRAIN, CLEAN_ALL and so on."""
    title = name.lower().replace("_", "-")
    if not name.isupper() or title not in _COMMANDS:
        raise AttributeError(name)
    return app_of(title)


def _called() -> str:
    """Return the command line that started psa, for its help and its errors."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    # a shell completes a command and its words, not Python and what it runs
    is_module = spec is not None and spec.name == "psa.__main__" and "--install-completion" not in sys.argv
    return "python -m psa" if is_module else "psa"


PSA: Final = App(
    name=_called(),
    help="Train very many small neural networks at once, as a scientific study.",
    help_epilogue=_FIRST_STEPS,
    **_SHARED,
)
for _name, (_, _group) in _COMMANDS.items():
    if _group is not None:
        PSA.command(f"psa.cli.app:{_name.upper()}", name=_name)
PSA.register_install_completion_command(
    help="Enable tab completion of commands and options.", group=_GROUPS["Options"]
)
for _option in ("--help", "--version"):
    PSA[_option].group = (_GROUPS["Options"],)


def run(app: App, arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return its exit code. A user error is one line on standard error and exit code 2."""
    tokens = _without_separator(app, list(sys.argv[1:] if arguments is None else arguments))
    tokens, foreign = _parted(app, tokens)
    tokens = _with_seconds(tokens)
    if app is PSA and tokens[:1] in ([], ["--help"], ["-h"]):
        for name in PSA:  # the list of commands has a line of each
            _ = PSA[name]
    app, tokens = _of_study(app, tokens)
    debug = "--debug" in tokens
    if "train" not in (*app.name, *tokens[:1]):  # `train` has an option of that name, which says more
        tokens = [word for word in tokens if word != "--debug"]
    process.log_to_stderr(debug)
    as_json = "--json" in tokens
    try:
        with process.reserved_stdout() if as_json else contextlib.nullcontext():
            result = app(
                tokens + foreign, exit_on_error=False, print_error=False, result_action="return_value"
            )
        code = _end_code(result, as_json)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, EXPECTED):
            raise
        return print_failure(error, app, as_json)
    return code


def _end_code(result: object, as_json: bool) -> int:
    """Return the exit code in the result of a command; print its document, if one was asked for."""
    if isinstance(result, int) or result is None:
        return result or 0
    from psa.cli.output.document import Outcome, write_document

    if not isinstance(result, Outcome):
        return 0
    if as_json and result.document is not None:
        write_document(result.document)
    return result.code


def _without_separator(app: App, tokens: list[str]) -> list[str]:
    """Return the tokens without the `--` that `poetry run train -- --arch x` passes on."""
    at = 1 if app is PSA and tokens[:1] != ["--"] else 0
    if tokens[:at] in _CARRIERS:
        return tokens
    return tokens[:at] + tokens[at + 1 :] if tokens[at : at + 1] == ["--"] else tokens


def _parted(app: App, tokens: list[str]) -> tuple[list[str], list[str]]:
    """Return our own tokens, and those from `--` on, which belong to a command that is to be run."""
    if app is PSA and tokens[:1] in _CARRIERS and "--" in tokens:
        at = tokens.index("--")
        return tokens[:at], tokens[at:]
    return tokens, []


def _with_seconds(tokens: list[str]) -> list[str]:
    """Return the tokens with the default behind a `--watch` that no number follows."""
    return [
        f"{word}={WATCH_SECONDS:g}" if word == "--watch" and not _is_number(after) else word
        for word, after in itertools.pairwise([*tokens, ""])
    ]


def _is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        float(word)
        return True
    return False


def _of_study(app: App, tokens: list[str]) -> tuple[App, list[str]]:
    """Return the app and tokens to run: `train --study NAME` has the options of that study."""
    called = app is PSA and tokens[:1] == ["train"]
    if not called and "train" not in app.name:
        return app, tokens
    named = _values_of("--study", tokens)
    if not named or named[-1] == "ablation":
        return app, tokens
    from psa.cli.train_study import train_of
    from psa.core.plugins.loading import load_plugins

    with contextlib.suppress(UserError):  # `train` itself rejects an unknown study
        load_plugins(_values_of("--plugin", tokens))  # the study may be one of theirs
        return command("train", train_of(named[-1])), [_hyphened(word) for word in tokens[called:]]
    return app, tokens


def _values_of(option: str, tokens: list[str]) -> list[str]:
    """Return the values that an option has on the command line."""
    return [
        word.partition("=")[2] if "=" in word else (*tokens[at + 1 : at + 2], "")[0]
        for at, word in enumerate(tokens)
        if word.partition("=")[0] == option
    ]


def _hyphened(word: str) -> str:
    """Replace underscores in an option by hyphens: the original studies write --num_layers."""
    option, equals, value = word.partition("=")
    return f"{option.replace('_', '-')}{equals}{value}" if option.startswith("--") else word


_CARRIERS: Final = (["rehearse"],)  # what follows their `--` is another command


def _end_of(app: App) -> NoReturn:
    """Run a command and exit with its code."""
    process.take_over()
    sys.exit(run(app))


def entry(name: str, module: str, function: str) -> Callable[[], None]:
    """Return a console script for a function, whose module is imported when it starts."""

    def start() -> None:
        _end_of(command(name, imported(module, function)))

    start.__doc__ = f"`{name}`."
    return start


def main() -> None:
    """Run `psa`."""
    _end_of(PSA)


def train_command() -> None:
    """Run `train`."""
    _end_of(app_of("train"))


def clean_command() -> None:
    """Run `clean`."""
    _end_of(app_of("clean"))


def clean_all_command() -> None:
    """Run `clean-all`."""
    _end_of(app_of("clean-all"))


def analyze_dataset_command() -> None:
    """Run `analyze-dataset`."""
    _end_of(app_of("analyze-dataset"))
