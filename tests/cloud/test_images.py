"""The bundled table of container images equals that of AWS's own SDK."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.images import TABLE, image_facts, sdk_folder, with_facts


def test_the_table_is_that_of_the_sdk() -> None:
    """To the letter: `make images` changes nothing."""
    folder = sdk_folder()
    if folder is None:
        pytest.skip("the extra sagemaker is not installed: AWS's SDK for Python")
    assert with_facts(TABLE.read_text(), *image_facts(folder)) == TABLE.read_text()


def test_tags_and_registries_are_read_from_tables_like_the_sdks(tmp_path: Path) -> None:
    """The newest version counts, as a number; other regions have the registries of the older images."""
    new = {"container_version": {"gpu": "g", "cpu": "c"}, "registries": {"us-east-1": "763104351884"}}
    old = {"registries": {"us-east-1": "1", "cn-north-1": "727897471807", "us-iso-east-1": "2"}}
    for name, version, body in (("pytorch-amzn2023", "2.14", new), ("pytorch", "2.10", old)):
        table = {"training": {"versions": {"2.9": {}, version: body}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    tags, accounts = image_facts(tmp_path)
    assert tags == {"cpu": "2.14-c", "gpu": "2.14-g"}
    assert accounts == {"cn-north-1": "727897471807"}
    text = '[tags]\ncpu = "x"\n\n# kept\n[accounts]\nold = "1"\n'
    assert with_facts(text, tags, accounts) == (
        '[tags]\ncpu = "2.14-c"\ngpu = "2.14-g"\n\n# kept\n[accounts]\ncn-north-1 = "727897471807"\n'
    )
