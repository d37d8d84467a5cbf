"""Plugins in the identity of trials: of those that use them, and of no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_files import EXAMPLE, forgotten, loaded, mode_plugin

from psa.core.plugins.identity import PluginError
from psa.core.plugins.loading import loaded_plugins, unload
from psa.core.plugins.registry import REGISTRIES
from psa.execution.worker.protocol import check_plugins, pack_body, received_pack, stored_pack
from psa.reports.report_kinds import REPORT_PLUGINS
from psa.specs.model import NetworkSpec
from psa.specs.training import Ablation
from psa.specs.trial import Pack, Trial


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Nothing that a test loads is there in the next one."""
    with forgotten():
        yield


def example(**changes: object) -> Trial:
    """A trial that uses all of the example."""
    given = {
        "study": "mine",
        "model": NetworkSpec(family="bottleneck", arch="1*4"),
        "intervention": Ablation(mode="input"),
        "probes": ("norms",),
    }
    return Trial.model_validate(given | changes)


def test_a_trial_names_what_it_uses() -> None:
    """Each thing with its plugin and the digest of it; nothing where nothing is used."""
    with loaded(EXAMPLE):
        used = [(use.kind, use.name) for use in example().plugins]
        assert used == [("family", "bottleneck"), ("mode", "input"), ("probe", "norms")]
        assert {use.plugin for use in example().plugins} == {EXAMPLE.name}
        plain = Trial()
    assert plain.plugins == ()
    assert "plugins" not in plain.model_dump(mode="json")


def test_a_plugin_that_is_loaded_and_not_used_changes_no_trial() -> None:
    """Neither digest nor id."""
    before = Trial(), Trial(intervention=Ablation(mode="hidden"))
    with loaded(EXAMPLE):
        after = Trial(), Trial(intervention=Ablation(mode="hidden"))
    assert [trial.digest for trial in before] == [trial.digest for trial in after]


def test_the_digest_of_the_plugin_is_part_of_that_of_the_trial(tmp_path: Path) -> None:
    """A plugin with other bytes makes other trials."""
    digests = set()
    for layer in (0, 1):
        with loaded(mode_plugin(tmp_path / str(layer), layer=layer)):
            digests.add(Trial(intervention=Ablation(mode="first")).digest)
    assert len(digests) == 2


def test_a_stored_trial_is_read_without_its_plugin() -> None:
    """Its names, its digest and what it uses stay; with the plugin changed as well."""
    with loaded(EXAMPLE):
        trial = example()
        body = trial.model_dump(mode="json")
    read = Trial.model_validate(body)
    assert (read, read.digest, read.id) == (trial, trial.digest, trial.id)
    assert read.model_dump(mode="json") == body
    assert read.changed(seed=4).plugins == trial.plugins
    with pytest.raises(ValueError, match="mode must be"):
        Trial.model_validate({**body, "plugins": []})


def test_a_pack_carries_the_code_of_what_it_uses() -> None:
    """Where it is received the plugin is loaded from the pack; where it is read back it is not."""
    with loaded(EXAMPLE):
        pack = Pack(trials=(example(), example(seed=1)), horizon=2)
        body = pack_body(pack)
    assert stored_pack(body, "a pack") == pack
    assert loaded_plugins() == []
    with pytest.raises(PluginError, match="which is not loaded"):
        check_plugins(pack.trials)
    assert received_pack(body, "a pack") == pack
    assert [plugin.name for plugin in loaded_plugins()] == [EXAMPLE.name]
    assert pack_body(pack) == body


def test_a_pack_without_plugins_carries_nothing() -> None:
    """Its bytes are those of before there were plugins."""
    pack = Pack(trials=(Trial(),), horizon=1)
    with loaded(EXAMPLE):
        assert pack_body(pack) == pack.model_dump(mode="json")


@pytest.mark.parametrize("fault", ["digest", "base64", "zlib", "missing", "form"])
def test_a_pack_with_damaged_code_is_refused(fault: str) -> None:
    """In one line, and nothing of it runs."""
    with loaded(EXAMPLE):
        body = pack_body(Pack(trials=(example(),), horizon=1))
    (plugin,) = body["plugins"]
    if fault == "digest":
        plugin["version"] = "sha256:" + "0" * 64
    elif fault == "missing":
        plugin["files"] = {}
    elif fault == "form":
        body["plugins"] = ["x"]
    else:
        plugin["files"] = {EXAMPLE.name: "?" if fault == "base64" else "eJw="}
    with pytest.raises(PluginError) as error:
        received_pack(body, "a pack")
    assert "\n" not in str(error.value)
    assert loaded_plugins() == []


def test_a_changed_plugin_does_not_continue_a_trial(tmp_path: Path) -> None:
    """The line has the old and the new digest; other settings of the trial do not hide it."""
    with loaded(mode_plugin(tmp_path, layer=0)):
        stored = Trial(intervention=Ablation(mode="first"))
    with loaded(mode_plugin(tmp_path, layer=1)):
        later = Trial(intervention=Ablation(mode="first"))
    with pytest.raises(PluginError) as error:
        stored.continued_by(later, 3)
    assert stored.plugins[0].id.shown_version in str(error.value)
    assert later.plugins[0].id.shown_version in str(error.value)


def test_legs_keep_the_plugins_that_trained_them(tmp_path: Path) -> None:
    """A trial that goes on in another mode still says what its first loops used."""
    with loaded(mode_plugin(tmp_path)):
        stored = Trial(study="train", intervention=Ablation(mode="first"))
    going_on = stored.continued_by(Trial(study="train"), 2)
    assert going_on.plugins == stored.plugins
    assert going_on.at_loop(1).plugins == stored.plugins
    assert going_on.at_loop(3).changed(legs=()).plugins == ()


def test_reports_of_psa_are_known() -> None:
    """Else a plugin could take the place of one, and psa would look for its own in installed packages."""
    assert REPORT_PLUGINS.built_in() == ["ablation", "activations", "glonet", "gradients", "memory"]


def test_unloading_forgets_all_that_was_registered() -> None:
    """In every registry."""
    with loaded(EXAMPLE):
        (plugin,) = loaded_plugins()
        assert any(len(registry.names) > len(registry.built_in()) for registry in REGISTRIES.values())
        unload(plugin)
        assert all(len(registry.names) == len(registry.built_in()) for registry in REGISTRIES.values())
