"""Settings under the names, and in the forms, of the runner that `Experiment` replaces.

`hidden_dims=[512, 256]` is `arch="1*512, 1*256"`, and `(nn.ReLU, {})` is `"ReLU"`. A name without a successor
is an error that says what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psa.core.errors import UserError
from psa.experiments.study import study_named

_INSTEAD: Final = {
    "activation_class": "Write activation='ReLU', with its parameters behind the name",
    "activation_kwargs": "Write activation='JumpReLU(initial=0.5)'",
    "architectures": "Write axes={'arch': ['1*512, 1*256', ...]}",
    "activations": "Write axes={'activation': ['ReLU', 'Tanh']}",
    "temperatures": "Write axes={'temperature': [0.01, 0.1]}",
    "epochs": "Write Experiment(..., epochs=50)",
    "max_epochs": "Write Experiment(..., epochs=50)",
    "experiment_type": "Leave it out; for stochastic layers write simplex='all', scaling='simplex'",
    "layer_kwargs": "Write simplex='all', scaling='simplex', temperature=0.01",
    "save_dir": "Write run(results_dir=..., model_dir=...)",
    "plot_config": "Leave it out; `psa report NAME --runs` draws the figures",
    "device": "Write run(device='cpu')",
}


def current_settings(given: Mapping[str, Any], study: str, *, lists: bool) -> dict[str, Any]:
    """Return settings under the names and in the forms of psa.

    Args:
        given: Settings by name, in either form.
        study: The study that has the settings.
        lists: True where each value is a list of values, as in `axes`.

    Raises:
        UserError: An earlier name without a successor, or a setting under both of its names.

    """
    aliases = study_named(study, f"experiment {study}").ALIASES
    known = study_named(study, f"experiment {study}").Settings.model_fields
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key in _INSTEAD and key not in known:
            raise UserError(f"{key} must be left out of the settings", _INSTEAD[key])
        name = aliases.get(key, key) if key not in known else key
        if name in found or (name != key and name in given):
            raise UserError(f"{name} must be set once, got {key} beside it", f"Leave {key} out")
        found[name] = _listed(name, value) if lists else _current(name, value)
    return found


def _listed(name: str, values: Any) -> Any:
    return [_current(name, each) for each in values] if isinstance(values, list | tuple) else values


def _current(name: str, value: Any) -> Any:
    """Return widths as an architecture, and a class with its parameters as an activation."""
    if name == "arch" and isinstance(value, Sequence) and value and all(type(each) is int for each in value):
        return ", ".join(f"1*{width}" for width in value)
    if name == "activation" and isinstance(value, type):
        return value.__name__
    if name == "activation" and isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], type):
        parameters = ", ".join(f"{key}={number}" for key, number in dict(value[1]).items())
        return value[0].__name__ + (f"({parameters})" if parameters else "")
    return value
