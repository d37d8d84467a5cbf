"""psa: train very many small neural networks at once, as a scientific study.

Example:
    >>> from psa import Experiment
    >>> results = Experiment("ablation", axes={"mode": ["none", "hidden"]}, epochs=2).run()

"""

TYPE_CHECKING = False  # as type checkers know it; importing typing would take longer than all of this file
if TYPE_CHECKING:
    from psa.analysis.records_frame import load_records_frame
    from psa.core.errors import UserError
    from psa.core.plugins.loading import load_plugin
    from psa.data.own import register_data_source
    from psa.engine.model_export import load
    from psa.execution.backend import register_backend
    from psa.experiment.definition import Experiment
    from psa.experiments.study import register_study
    from psa.experiments.tracking.trackers import register_tracker
    from psa.probes import register_probe
    from psa.reports.registration import register_report
    from psa.specs.shapes import register_family
    from psa.specs.training import register_mode
    from psa.specs.trial import Trial
    from psa.storage.store import Store

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Store",
    "Trial",
    "UserError",
    "__version__",
    "load",
    "load_plugin",
    "load_records_frame",
    "register_backend",
    "register_data_source",
    "register_family",
    "register_mode",
    "register_probe",
    "register_report",
    "register_study",
    "register_tracker",
]

# Each is imported on first access: `import psa` loads none of the libraries they need.
_MODULES = {
    "Experiment": "psa.experiment.definition",
    "Store": "psa.storage.store",
    "Trial": "psa.specs.trial",
    "UserError": "psa.core.errors",
    "load": "psa.engine.model_export",
    "load_plugin": "psa.core.plugins.loading",
    "load_records_frame": "psa.analysis.records_frame",
    "register_backend": "psa.execution.backend",
    "register_data_source": "psa.data.own",
    "register_family": "psa.specs.shapes",
    "register_mode": "psa.specs.training",
    "register_probe": "psa.probes",
    "register_report": "psa.reports.registration",
    "register_study": "psa.experiments.study",
    "register_tracker": "psa.experiments.tracking.trackers",
}


def __getattr__(name: str) -> object:
    """Import a public name. Raise AttributeError for any other."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not, and those of modules that are loaded."""
    return sorted({*__all__, *(name for name in globals() if name not in ("TYPE_CHECKING", "_MODULES"))})
