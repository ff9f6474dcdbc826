"""The measurement of many decisions: its archive is one that a comparison reads, every row of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.policy import Policy
from replay.archive_files import Files
from replay.comparison import compare
from replay.comparison_report import report
from replay.logged import logged_at
from replay.outcomes import Decider
from replay.remake import load_plugins
from replay.replay_bench import POLICIES, POLICY, stages, write


def test_every_made_up_decision_is_compared_and_its_bill_found(tmp_path: Path) -> None:
    """None is a repeat, none lacks a signal, each has a cost and there is something to change."""
    load_plugins()
    write(Files(str(tmp_path)), 3_000)
    policy = Policy.parse(POLICY)
    found = report(compare(logged_at(str(tmp_path)), policy), policy)

    assert (found["decisions"], found["repeats_collapsed"], found["unknown"]) == (3_000, 0, 0)
    assert found["cost"]["agreed"]["priced"] + found["cost"]["other_model"]["logged_priced"] == 3_000
    assert 0 < found["changed"] < 3_000


def test_the_stages_make_up_the_whole(tmp_path: Path) -> None:
    """Shares of the CPU time of a comparison add up to one, and each stage takes some."""
    load_plugins()
    write(Files(str(tmp_path)), 3_000)
    shares = stages(str(tmp_path), Policy.parse(POLICY))

    assert sum(shares.values()) == pytest.approx(1.0, abs=0.01)
    assert min(shares.values()) > 0.0


def test_one_policy_of_the_measurement_needs_confidences_and_one_does_not() -> None:
    """So that both ways of deciding are measured."""
    reads = {name: Decider(Policy.parse(text)).reads for name, text in POLICIES.items()}

    assert {name: "confidence" in fields for name, fields in reads.items()} == {
        "matches": False,
        "confidences": True,
    }
