"""psa.storage.records.history: the loops that became the LKG."""

from psa.storage.records.history import accepted_loops, lkg_correct, loops_since_accepted


def test_the_lkg_in_a_history() -> None:
    """Its score, and for how many loops it has stood; with patience, of the copy that was accepted last."""
    empty = {"correct": [], "kept": []}
    assert (lkg_correct(empty), loops_since_accepted(empty)) == (None, 0)
    history = {"correct": [50, 60, 40, 30], "kept": [True, True, False, False]}
    assert accepted_loops(history) == history["kept"]
    assert (lkg_correct(history), loops_since_accepted(history)) == (60, 2)
    history["accepted"] = [True, True, True, False]
    assert accepted_loops(history) == history["accepted"]
    assert (lkg_correct(history), loops_since_accepted(history)) == (40, 1)
