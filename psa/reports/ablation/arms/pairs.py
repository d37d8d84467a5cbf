"""The scores of arms after a number of loops, and the trials of two arms side by side."""

from __future__ import annotations

import pandas as pd

from psa.core.formatting import join_names, pluralize

_PLACE = ["arm", "arch", "seed"]


def lengths_of(rows: pd.DataFrame) -> list[int]:
    """Return the numbers of loops of finished trials that did not stop early, in rising order."""
    done = rows[(rows["status"] == "done") & ~_stopped(rows)]
    return sorted(set(map(int, done["loops"])))


def _stopped(rows: pd.DataFrame) -> pd.Series:
    return rows["stopped_early"].fillna(value=False).astype(bool)


def bounties_after(frame: pd.DataFrame, loops: int) -> pd.Series:
    """Return the bounty in percent after so many loops, by arm, architecture and seed. A trial that is
    shorter is left out, unless it stopped early.
    """
    until = _until(frame, loops)
    kept = until[until["kept"].fillna(value=False).astype(bool)]
    return kept.groupby(_PLACE, observed=True)["accuracy"].max()


def _until(frame: pd.DataFrame, loops: int) -> pd.DataFrame:
    """Return the rows of the first loops of the trials that have so many, or stopped early."""
    there = frame["loop"].notna() & ((frame["loops"] >= loops) | _stopped(frame))
    return frame[there & (frame["loop"] <= loops)]


def accuracies_after(rows: pd.DataFrame, loops: int) -> pd.Series:
    """Return the test accuracy in percent of the trials that ended after so many loops, or stopped early, by
    arm, architecture and seed. rows: one per trial; a longer trial was tested at its end alone.
    """
    ended = (rows["status"] == "done") & (
        (rows["loops"] == loops) | (_stopped(rows) & (rows["loops"] <= loops))
    )
    return rows[ended & rows["test"].notna()].groupby(_PLACE, observed=True)["test"].max()


def histories_after(frame: pd.DataFrame, loops: int) -> pd.Series:
    """Return the bytes of all results of the first loops, by arm, architecture and seed: equal ones are those
    of trials with the same accuracy and losses in every loop.
    """
    columns = ["loop", "accuracy", "loss", "train_loss"]
    until = _until(frame, loops).sort_values("loop")
    numbers = until[columns].astype("float64")
    places = until.groupby(_PLACE, observed=True).indices
    found = {place: numbers.iloc[at].to_numpy().tobytes() for place, at in places.items()}
    index = pd.MultiIndex.from_tuples(list(found), names=_PLACE) if found else None
    return pd.Series(list(found.values()), index=index, dtype=object)


def pairs_of(scores: pd.Series, arm: str, base: str) -> pd.DataFrame:
    """Return the scores of two arms side by side, of the architectures and seeds that both have."""
    arms = scores.index.get_level_values("arm")
    parts = {name: scores[arms == each].droplevel("arm") for name, each in (("arm", arm), ("base", base))}
    return pd.DataFrame(parts).dropna()


def common_seeds(scores: pd.Series) -> tuple[pd.Series, str]:
    """Return the scores of the seeds that all arms have, and a note that names these seeds: means of arms
    over different seeds are not comparable. If all arms have the same seeds, or no seed in common, return all
    scores and an empty note.
    """
    of_arms = {
        str(arm): set(map(int, part.index.get_level_values("seed")))
        for arm, part in scores.groupby("arm", observed=True)
    }
    every = set().union(*of_arms.values())
    common = set.intersection(*of_arms.values()) if of_arms else set()
    if not common or common == every:
        return scores, ""
    names = join_names(list(map(str, sorted(common))))
    return (
        scores[scores.index.get_level_values("seed").isin(common)],
        f"Of {pluralize(len(every), 'seed')} those that all arms have: {names}.",
    )
