"""Published trials keep their ids and digests, whatever is added to a trial."""

from __future__ import annotations

import hashlib

import pytest
from paths import ROOT

from psa.experiments.grid import load_grid
from psa.experiments.search import load_search

# The number of trials of each grid, and the SHA-256 of a line `id digest` for each of them, from before there
# were plugins.
TRIALS = {
    "activations": (285, "1faaefa8017cb775b755abb6e2a644b2009c81b62df3abc6973a5a2cff533a3f"),
    "architectures": (35, "668c959f75bfb8304c681024af1b9d6855a8b06362aff941c7b271993f093753"),
    "glonet": (144, "894fac06ebd60593c25716b29c4dded276c0f8ab592c72def183547b8a7d3b12"),
    "gradients": (15, "ca410407ba0f2f9f4138c08aa023b94ff823e005f8ba33c77d861f45ea62f4b8"),
    "growth": (56, "b75e1794b14339ca113b323c8eae925d027c915235c38d1c9f8bf4a5488111ce"),
    "memory": (84, "e8eb9df1d08c03e03ddfb4266c7e5de798cad67fb94d6f54065fb7d5d99ca9d7"),
    "resmlp": (5880, "be0797d6651e0a7673f3a48e78edb97d89ff70e201eee3d5dca2ddc2a85fc2a4"),
    "screen": (2940, "95cf404563b45a62adcabf660f534d4123d7031739d988cea9d0c790a84dae64"),
    "simplemlp": (5880, "319aad972b29c8f7797adf46140aa03f663ae726c0d8909c7337581e32bff3ad"),
    "smallest": (600, "7678c4b165cde49ffc8a60bd1df3d5075b7eecbb2068186e30cf0ebcb0be129d"),
    "smoke": (24, "0dc152154dfbfe5114de6b8ebacf735684c15048b0a4250db6ff52b6b3e0742c"),
    "stochastic": (90, "ddaab534d821275de7a09357e9d5a009d0246a07cc86c2192633a8d2a3a0fbe1"),
}
SEARCH = "059ad713079d73d696ea9d3fda682d2bda6e7fe45330383739f8c1ebf9bc1762"


def test_every_grid_of_the_studies_is_listed() -> None:
    """All that were there before plugins."""
    assert {f"{name}.toml" for name in TRIALS} <= {path.name for path in (ROOT / "reproduction").iterdir()}


@pytest.mark.parametrize("name", TRIALS)
def test_trials_have_the_ids_and_digests_that_they_were_published_with(name: str) -> None:
    """A stored record would otherwise belong to a trial that no grid has."""
    trials = load_grid(ROOT / f"reproduction/{name}.toml").trials
    lines = "".join(f"{trial.id} {trial.digest}\n" for trial in trials)
    assert (len(trials), hashlib.sha256(lines.encode()).hexdigest()) == TRIALS[name]


def test_the_search_has_its_digest() -> None:
    """It names the stored log of a search."""
    assert load_search(ROOT / "reproduction/search.toml").digest == SEARCH
