"""What a proposal of a threshold does not do: break its limit, claim certainty, or forget labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.sweeping.choosing import Proposal, propose
from replay.sweeping.labels import Sample, labels_in
from tests.replay.sweeping.test_sweep import labelled, labelled_log, run


@pytest.mark.parametrize("most", [0.0, 0.05])
def test_a_limit_of_false_alarms_that_nothing_keeps_proposes_nothing(most: float) -> None:
    """One in ten labels is wrong at any score, so that thresholds below the top raise too much."""
    found = propose(labelled(3), [0.2, 0.4, 0.6], 0.5, most_alarms=most)

    assert isinstance(found, str)
    assert f"keeps false alarms to {most:g}" in found


@pytest.mark.parametrize(("labels", "code"), [("right", 0), ("wrong", 4)])
def test_the_command_exits_with_4_where_the_limit_cannot_be_kept(
    tmp_path: Path, labels: str, code: int
) -> None:
    """Labels that any threshold raises falsely on leave nothing to propose under a limit."""
    log, policy, file = labelled_log(tmp_path, 400)
    if labels == "wrong":
        rows = [row.rpartition(",")[0] for row in file.read_text().splitlines()]
        file.write_text("\n".join([rows[0] + ",label", *(f"{r},{n % 2}" for n, r in enumerate(rows[1:]))]))
    options = ("--log", log, "--policy", policy, "--threshold", "embedding:maths=0.05:0.3:6")
    if labels == "right":
        options = (*options[:-1], "embedding:maths=0.05:0.95:19")
    result = run(*options, "--labels", file, "--false-alarms", "0.2", "--out", tmp_path / "out")

    assert result.exit_code == code
    assert ("keeps false alarms to 0.2" in result.stdout) == (code == 4)


def test_a_rate_without_exception_is_not_said_to_be_certain() -> None:
    """Of some 150 clusters without a false alarm, up to 2.5 % could raise one; so for what is all caught."""
    random = np.random.default_rng(5)
    score = random.random(600)
    sample = Sample(score, score >= 0.5, np.arange(600), 0, 0)
    found = propose(sample, [0.4, 0.5, 0.6], 0.5)

    assert isinstance(found, Proposal)
    assert (found.caught.value, found.false_alarms.value) == (1.0, 0.0)
    negatives = int((~sample.label).sum()) / 2
    assert found.false_alarms.high == pytest.approx(1.0 - 0.025 ** (1.0 / negatives), rel=0.02)
    assert found.false_alarms.low == 0.0
    assert found.caught.low == pytest.approx(0.025 ** (1.0 / (300 - negatives)), rel=0.02)


def test_labels_without_a_signal_count_beside_those_that_name_it(tmp_path: Path) -> None:
    """A file may name it in some rows only; where a request has both, the one that names it counts."""
    ids = [f"{n:032x}" for n in range(1, 4)]
    (tmp_path / "l.csv").write_text(
        f"request_id,label,signal\n{ids[0]},1,\n{ids[1]},0,embedding:maths\n{ids[2]},1,\n{ids[2]},0,embedding:maths\n"
    )
    found = labels_in(tmp_path / "l.csv", ["embedding:maths"]).of("embedding:maths")

    assert {key[1]: label for key, (label, _) in found.items()} == {1: True, 2: False, 3: False}
