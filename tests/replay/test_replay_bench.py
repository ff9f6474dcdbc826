"""The measurement of many decisions: its archive is one that a comparison reads, every row of it."""

from __future__ import annotations

from pathlib import Path

from agents.policy import Policy
from replay.archive_files import Files
from replay.comparison import compare
from replay.comparison_report import report
from replay.logged import logged_at
from replay.remake import load_plugins
from replay.replay_bench import POLICY, write


def test_every_made_up_decision_is_compared_and_its_bill_found(tmp_path: Path) -> None:
    """None is a repeat, none lacks a signal, each has a cost and there is something to change."""
    load_plugins()
    write(Files(str(tmp_path)), 3_000)
    policy = Policy.parse(POLICY)
    found = report(compare(logged_at(str(tmp_path)), policy), policy)

    assert (found["decisions"], found["repeats_collapsed"], found["unknown"]) == (3_000, 0, 0)
    assert found["cost"]["agreed"]["priced"] + found["cost"]["other_model"]["logged_priced"] == 3_000
    assert 0 < found["changed"] < 3_000
