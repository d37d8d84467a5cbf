"""The tools of the set-up, which no package holds."""

import importlib.util
import sys
from types import ModuleType

from paths import ROOT


def load_tool(name: str) -> ModuleType:
    """Return tools/NAME.py as a module of its own; it imports its neighbours, as a script does."""
    place = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        place.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return module
