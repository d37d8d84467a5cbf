"""Write the tables of container images from AWS's own SDK: `make images`, with the extra `sagemaker`.

The SDK knows the tags and the registries of the images. Regions in which it does not list the newest image
yet have the registry of the older images.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
TABLE: Final = ROOT / "cloud/sagemaker/container/images.toml"
COMMON_ACCOUNT: Final = "763104351884"
_NEWEST, _OLDER = "pytorch-amzn2023", "pytorch"


def sdk_folder() -> Path | None:
    """Return the folder of the SDK's image tables, or None if the SDK is not installed."""
    try:
        spec = importlib.util.find_spec("sagemaker.core")
    except ModuleNotFoundError:
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [Path(place) / "image_uri_config" for place in places]
    return next((folder for folder in found if folder.is_dir()), None)


def image_facts(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tags by processor, and the accounts by region that differ from the common one."""
    version, newest = _latest(folder, _NEWEST)
    _, older = _latest(folder, _OLDER)
    tags = {name: f"{version}-{tag}" for name, tag in sorted(newest["container_version"].items())}
    registries = older["registries"] | newest["registries"]
    accounts = {name: each for name, each in sorted(registries.items()) if each != COMMON_ACCOUNT}
    return tags, {name: each for name, each in accounts.items() if "-iso" not in name}


def _latest(folder: Path, framework: str) -> tuple[str, dict[str, Any]]:
    versions = json.loads((folder / f"{framework}.json").read_text())["training"]["versions"]
    name = max(versions, key=lambda each: [int(part) for part in each.split(".")])
    return versions[name].get("tag_prefix", name), versions[name]


def with_facts(text: str, tags: dict[str, str], accounts: dict[str, str]) -> str:
    """Return the table with these tags and accounts; all else in it is kept."""
    for head, values in (("tags", tags), ("accounts", accounts)):
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        text = re.sub(rf"(?<=\[{head}\]\n)([a-z0-9-]+ = .*\n)+", lines, text)
    return text


def main() -> int:
    """Write the table."""
    folder = sdk_folder()
    if folder is None:
        print("make images: the extra sagemaker is not installed", file=sys.stderr)
        return 2
    TABLE.write_text(with_facts(TABLE.read_text(), *image_facts(folder)))
    print(TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
