"""`train --study NAME`: networks of a study, set by the keys of its grids, as single runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from psa.cli.checkpoint_folder import lock_folder
from psa.cli.console import TrainView, console, print_line, summary_table
from psa.cli.options import EXPERIMENT, TRAINING, PluginFiles, WholeOption, option, option_name
from psa.cli.run_options import PackRun, RunOptions, in_range, trained
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.plugins.loading import load_plugins
from psa.core.plugins.registry import Registry
from psa.execution.cost_model import bank_bytes
from psa.execution.gradient_storage import epoch_bytes, unreached
from psa.execution.machine import check_memory
from psa.experiments.setting_text import parse_setting, unwrap_annotation
from psa.experiments.study import Study, study_named
from psa.specs.base import first_error, parse_spec
from psa.specs.model import NetworkSpec
from psa.specs.trial import Pack, Trial, check_sizes
from psa.storage.plugin_versions import check_versions
from psa.storage.store import Store

DEFAULT_EPOCHS: Final = 10
_TYPES: Final[dict[Any, str]] = {bool: "BOOL", int: "INT", float: "FLOAT"}
_SETTINGS: Final = Group.create_ordered("Settings of the study")


def train_of(name: str) -> Callable[..., int]:
    """Return `train` for one study: a function with its settings as options. Raises UserError."""
    study = study_named(name, "--study")

    def train(**given: Any) -> int:
        run, epochs = given.pop("run", None) or RunOptions(), given.pop("epochs", _epochs(study))
        load_plugins(given.pop("plugin", None) or ())
        given.pop("study", None)
        return _train(
            study, name, {key: text for key, text in given.items() if text is not None}, run, epochs
        )

    train.__signature__ = inspect.Signature([_keyword(*each) for each in _options(study, name)])  # type: ignore[attr-defined]
    train.__doc__ = f"""Train one network of the study {name}, and store it as a sweep of the study would.

    {(study.__doc__ or "").strip().partition(chr(10))[0]}

    Example: train --study {name} --epochs 2
    """
    return train


def _options(study: Study, name: str) -> Iterator[tuple[str, Any, Parameter, Any]]:
    """Yield each option: its name, its type, its parameter in the help, and its default."""
    for key, field in study.Settings.model_fields.items():
        yield key, str | None, _option(key, field, study), None
    yield "study", str, option(EXPERIMENT, "Name of the study."), name
    yield "plugin", PluginFiles, Parameter(), ()
    epochs = option(
        TRAINING,
        "Total number of epochs; a larger number continues the run.",
        name=("--epochs", "--meta-loops"),
    )
    yield "epochs", WholeOption, epochs, _epochs(study)
    yield "run", RunOptions | None, Parameter(name="*"), None


def _epochs(study: Study) -> int:
    """Return the default number of epochs of a study."""
    return int(getattr(study, "EPOCHS", DEFAULT_EPOCHS))


def _keyword(name: str, kind: Any, shown: Parameter, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )


def _option(key: str, field: FieldInfo, study: Study) -> Parameter:
    """Return a setting as an option, with its aliases."""
    aliases = [key, *(other for other, setting in study.ALIASES.items() if setting == key)]
    spelled = tuple(f"--{name.replace('_', '-')}" for name in aliases)
    kind = unwrap_annotation(field.annotation)
    names = get_args(kind) if get_origin(kind) is Literal else ()
    names = next((each.names for each in field.metadata if isinstance(each, Registry)), names)
    choices = f" [choices: {', '.join(map(str, names))}]" if names else ""
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    has_default = default is not None and not field.is_required()
    text = f"{field.description}{choices}" + f" [default: {default}]" * has_default
    shown_type = "CHOICE" if choices else _TYPES.get(kind, "STR")  # the study itself parses the text
    return option(_SETTINGS, text, name=spelled, negative="", metavar=shown_type)


def _trials(study: Study, name: str, given: dict[str, str], seeds: Sequence[int]) -> tuple[Trial, ...]:
    fields = study.Settings.model_fields
    values = {
        key: parse_setting(fields[key].annotation, text, option_name(key)) for key, text in given.items()
    }
    try:
        settings = study.Settings.model_validate(values)
        return tuple(study.from_settings(settings, seed, name) for seed in seeds)
    except ValidationError as error:
        # what is not a setting is a field of the trial, and named as in its record
        message = first_error(error, lambda key: option_name(key) if key in fields else key)
        raise UserError(message, f"See `train --study {name} --help`") from None


def _train(study: Study, name: str, given: dict[str, str], run: RunOptions, epochs: int) -> int:
    run.check()
    in_range("--epochs", epochs, 1, 1_000_000)
    trials = _trials(study, name, given, run.seeds)
    check_sizes(trials[0])
    shape, out = trials[0].shape, console()
    horizons = {trial.id: epochs for trial in trials}
    for warning in [*study.warnings(trials), *unreached(trials, horizons)]:
        print_line(out, f"note: {warning}")
    check_writable(run.results_dir)
    check_writable(run.model_dir)
    store = Store(run.model_dir, run.results_dir)
    check_versions(trials, store)
    with lock_folder(run.model_dir):
        kept, bank = epoch_bytes(trials[0]), bank_bytes(trials[0])
        check_memory(shape.parameters, len(trials), run.prepare(out), kept, bank)
        model = trials[0].model
        activation = model.activation.label if isinstance(model, NetworkSpec) else "ReLU"
        out.print(summary_table(model.family, str(model.arch), shape, activation))
        stored = [store.load_state(trial) for trial in trials]
        reached = min(0 if state is None else state.loops for state in stored)
        pack = parse_spec(Pack, {"trials": trials, "horizon": epochs}, "train")
        view = TrainView(out, shape, epochs, debug=run.debug)
        return trained(PackRun(pack, reached, finishing=reached < epochs), store, run.machine, view, out)
