"""A sweep is what deciding again one by one would be at each threshold; its proposal finds a known truth."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import replay.cli
import replay.policy_cli
import replay.sweep_cli
from agents.decision import decide
from agents.errors import ConfigError
from agents.policy import Policy
from replay.cases import Case, cases
from replay.logged import KeptLog
from replay.outcomes import Asked, Decided, Decider
from replay.policy_edit import diff_of, with_thresholds
from replay.sweeping.axes import Axis, axis_of, points_of
from replay.sweeping.choosing import Proposal, propose, rates_of
from replay.sweeping.labels import Sample
from replay.sweeping.points import sweep
from replay.sweeping.report import front_of
from replay.view import MemoryLog
from schemas.signal import Observations
from tests.replay.logs import POLICY_YAML, LogBuilder, kept

replay.policy_cli.load_plugins()
APP = typer.Typer()
replay.sweep_cli.register(replay.cli.register(APP), dict)
replay.policy_cli.register(APP, dict)
POLICY = Policy.parse(POLICY_YAML)
WRITTEN = "embedding:maths=0.1:0.9:9"


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests with raw scores between 0 and 1, some of them failed, and repeats."""
    found = LogBuilder()
    for number in range(150):
        request, decision = found.answered(number)
    found.append("decisions", decision.origin.partition, decision, request.request_id)
    return found


def nobody(ids: np.ndarray) -> np.ndarray:
    """Return that none of *ids* has a label."""
    return np.zeros(len(ids), dtype=np.bool_)


def one_by_one(builder: LogBuilder, threshold: float) -> Counter[tuple[str, str]]:
    """Return decision and model of every request, its signals matched anew and decided one at a time."""
    found: Counter[tuple[str, str]] = Counter()
    seen: set[bytes] = set()
    for case in cases(MemoryLog(builder.envelopes, builder.policies)):
        assert isinstance(case, Case)
        if case.decision.request_id in seen:
            continue
        seen.add(case.decision.request_id)
        sets = []
        for role, seen_set in case.sets:
            rows = [
                row._replace(matched=row.value >= threshold)
                if row.type == "embedding" and row.status == "ok"
                else row
                for row in seen_set.observations
            ]
            sets.append((role, replace(seen_set, observations=Observations.of(rows))))
        core = decide(
            POLICY, recipe="", request_id=case.decision.request_id, sets=sets, facts=case.decision.core.facts
        )
        found[core.decision or f"({core.failure or core.outcome})", core.chosen] += 1
    return found


def test_every_point_is_what_deciding_one_by_one_gives(builder: LogBuilder) -> None:
    """Deciding again only what flips leaves the same counts as deciding everything again."""
    axis = axis_of(WRITTEN, POLICY)
    found = sweep(KeptLog(MemoryLog(builder.envelopes, builder.policies)), POLICY, [axis], nobody)

    assert found.decisions == 150
    for number, (step,) in enumerate(found.points):
        counts: Counter[tuple[str, str]] = Counter()
        for code, outcome in enumerate(found.outcomes):
            counts[outcome.goes_by, outcome.chosen] += int(found.rows[number, code])
        assert +counts == one_by_one(builder, axis.values[step])


def test_a_sweep_counts_matches_and_rows_without_a_score(builder: LogBuilder) -> None:
    """Failed observations have no score; the logged threshold explains every logged match."""
    axis = axis_of(WRITTEN, POLICY)
    found = sweep(KeptLog(MemoryLog(builder.envelopes, builder.policies)), POLICY, [axis], nobody)
    scores = [
        row.value
        for case in cases(MemoryLog(builder.envelopes, builder.policies))
        if isinstance(case, Case)
        for _, seen in case.sets
        for row in seen.observations
        if row.type == "embedding" and not math.isnan(row.value)
    ][:-1]
    least, most = found.overlap[0]

    assert found.unscored[0] >= 1
    assert found.unscored[0] + len(scores) == pytest.approx(150, abs=1)
    assert list(found.matched[0]) == sorted(found.matched[0], reverse=True)
    assert most < 0.5 <= least


def test_several_thresholds_make_a_grid_that_is_walked_step_by_step() -> None:
    """Each point differs from the one before it in one axis, by one step; none is left out or twice."""
    axes = [Axis("embedding", name, tuple(range(size)), 0) for name, size in (("a", 3), ("b", 4), ("c", 2))]
    points = points_of(axes)

    assert len(set(points)) == len(points) == 24
    for one, other in pairwise(points):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) == 1


def test_the_policys_own_threshold_is_a_point() -> None:
    """Whatever the grid, today can be compared with it."""
    axis = axis_of("embedding:maths=0.11:0.93:4", POLICY)

    assert axis.current == 0.5
    assert 0.5 in axis.values
    assert len(axis.values) == 5


@pytest.mark.parametrize(
    "written",
    [
        "embedding:maths",
        "embedding:maths=a:b",
        "embedding:maths=0.9:0.1",
        "embedding:maths=0:1:1",
        "embedding:other=0:1",
        "keyword:code=0:1",
        "embedding:maths=nan:1",
    ],
)
def test_what_cannot_be_swept_is_refused_with_what_to_do(written: str) -> None:
    """The message names the option."""
    with pytest.raises(ConfigError, match=r"threshold|signal"):
        axis_of(written, POLICY)


def labelled(seed: int, rows: int = 2000, *, per_cluster: int = 1, cut: float = 0.6) -> Sample:
    """Return scores between 0 and 1 that ought to match above *cut*, one in ten labels wrong."""
    random = np.random.default_rng(seed)
    score = random.random(rows)
    label = (score >= cut) ^ (random.random(rows) < 0.1)
    return Sample(score, label, np.arange(rows) // per_cluster, 0, 0)


def test_the_proposal_finds_the_threshold_that_made_the_labels() -> None:
    """The truth lies in the interval, and the rates are those of the world: 9 in 10, and 1 in 10 falsely."""
    values = [round(0.02 * step, 6) for step in range(1, 50)]
    hits = 0
    for seed in range(12):
        found = propose(labelled(seed), values, 0.5, seed=seed)
        assert isinstance(found, Proposal)
        hits += found.threshold.low - 1e-9 <= 0.6 <= found.threshold.high + 1e-9
        assert abs(found.threshold.value - 0.6) <= 0.06
        assert found.better.value > 0
    assert hits >= 9


def test_rates_are_judged_on_the_half_that_did_not_choose() -> None:
    """Where labels are pure noise the best of many thresholds is no better than none, and is told so."""
    values = [round(0.02 * step, 6) for step in range(1, 50)]
    better = []
    for seed in range(16):
        random = np.random.default_rng(seed)
        noise = Sample(random.random(300), random.random(300) < 0.5, np.arange(300), 0, 0)
        found = propose(noise, values, 0.98, seed=seed)
        assert isinstance(found, Proposal)
        better.append(found.caught.value - found.false_alarms.value)
    # Chosen and judged on the same labels the mean is 0.08 here; on others its standard error is 0.02.
    assert abs(float(np.mean(better))) < 0.05


def test_the_interval_is_wider_where_rows_come_in_clusters() -> None:
    """Fifty copies of a row say no more than one."""
    once = labelled(3, 200)
    copies = Sample(np.repeat(once.score, 50), np.repeat(once.label, 50), np.repeat(once.cluster, 50), 0, 0)
    values = [round(0.05 * step, 6) for step in range(1, 20)]
    one, other = propose(once, values, 0.5), propose(copies, values, 0.5)

    assert isinstance(one, Proposal)
    assert isinstance(other, Proposal)
    assert other.caught.half > 0.8 * one.caught.half


def test_a_limit_of_false_alarms_is_kept_on_the_choosing_half() -> None:
    """With a limit the threshold is the one that catches most within it."""
    sample = labelled(1, 4000)
    values = [round(0.02 * step, 6) for step in range(1, 50)]
    found = propose(sample, values, 0.5, most_alarms=0.05)
    assert isinstance(found, Proposal)

    rates = rates_of(sample, values)
    at = values.index(found.threshold.value)
    assert rates.false_alarms[at] < 0.05
    assert rates.false_alarms[at - 2] > 0.04


def test_too_few_labels_propose_nothing_and_say_how_many_more() -> None:
    """A threshold from ten labels would be a guess."""
    found = propose(labelled(0, 30), [0.2, 0.5, 0.8], 0.5)

    assert isinstance(found, str)
    assert "label about" in found


@settings(deadline=None)  # a loaded machine is no slow front
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_nothing_beats_a_point_of_the_front(rows: list[tuple[float, float, float]]) -> None:
    """Every other point is beaten by one of the front, and none of the front by any."""
    points = [
        {"caught": q, "false_alarms": a, "cost_usd": c, "card_quality": None, "n": n}
        for n, (q, a, c) in enumerate(rows)
    ]
    kept_points = front_of(points)

    def beats(one: Any, other: Any) -> bool:
        pairs = [(one["caught"], other["caught"]), (-one["false_alarms"], -other["false_alarms"])]
        pairs.append((-one["cost_usd"], -other["cost_usd"]))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    assert kept_points
    for point in points:
        beaten = any(beats(other, point) for other in points)
        assert beaten == (point["n"] not in {p["n"] for p in kept_points})


FLOW = POLICY_YAML.replace(
    "- {name: maths, threshold: 0.5,", "- {threshold: 0.5, name: maths, # sure?\n         "
)
BLOCK = POLICY_YAML.replace(
    "- {name: maths, threshold: 0.5, candidates: [solve this equation]}",
    "# how sure we must be\n      - name: maths\n        threshold: 0.50 # was 0.4\n"
    "        candidates: [solve this equation]",
)
NONE = POLICY_YAML.replace("threshold: 0.5, ", "")
BLOCK_NONE = BLOCK.replace("        threshold: 0.50 # was 0.4\n", "")


@pytest.mark.parametrize("text", [POLICY_YAML, FLOW, BLOCK, NONE, BLOCK_NONE, POLICY_YAML.rstrip("\n")])
def test_a_threshold_is_replaced_and_nothing_else(text: str) -> None:
    """Comments, order and layout stay; one line differs, or two where the key is new."""
    policy = Policy.parse(text)
    new = with_thresholds(text, policy, {("embedding", "maths"): 0.62})
    changed = [line for line in diff_of(text, new, "p.yaml").splitlines() if line[:1] in "+-"][2:]

    assert Policy.parse(new).routing.signals["embeddings"][0].threshold == 0.62  # type: ignore[attr-defined]
    assert len(changed) <= 2
    assert new.count("#") == text.count("#")
    assert new.endswith("\n") == text.endswith("\n")


def test_a_threshold_that_is_no_plain_number_is_left_to_its_writer() -> None:
    """An anchor may be used elsewhere too, so it is named and not replaced."""
    text = POLICY_YAML.replace("threshold: 0.5", "threshold: &half 0.5")

    with pytest.raises(ConfigError, match=r"not written as a plain number; set it to 0\.7"):
        with_thresholds(text, Policy.parse(text), {("embedding", "maths"): 0.7})


def run(*options: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(APP, ["replay", "sweep", *map(str, options)])


def labelled_log(folder: Path, count: int) -> tuple[Path, Path, Path]:
    """Keep a log of *count* requests, its policy, and labels that are right above 0.7."""
    builder = LogBuilder()
    rows = []
    for number in range(count):
        request, origin = builder.request(number)
        sets, inputs = builder.signals(request, origin)
        builder.decision(request, origin, sets, inputs)
        (score,) = [r.value for _, s in sets for r in s.observations if r.type == "embedding"]
        rows.append(f"{request.request_id.hex()},{'yes' if score >= 0.7 else 'no'}")
    kept(str(folder / "log"), builder.envelopes, builder.policies)
    (folder / "labels.csv").write_text("request_id,label\n" + "\n".join(rows) + "\n")
    (folder / "policy.yaml").write_text(BLOCK)
    return folder / "log", folder / "policy.yaml", folder / "labels.csv"


def test_the_command_proposes_a_policy_that_check_accepts(tmp_path: Path) -> None:
    """The diff applies to the file, keeps its comments, and makes the policy that is written beside it."""
    log, policy, labels = labelled_log(tmp_path, 400)
    out = tmp_path / "out"
    options = ("--log", log, "--policy", policy, "--threshold", "embedding:maths=0.05:0.95:19")
    result = run(*options, "--labels", labels, "--out", out, "--json")
    told = json.loads(result.stdout)
    row = told["proposal"]["signals"]["embedding:maths"]

    assert result.exit_code == 0
    assert row["threshold"]["low"] <= 0.7 <= row["threshold"]["high"]
    assert row["caught"]["value"] > row["caught_now"]["value"] - 0.05
    assert row["false_alarms"]["value"] < row["false_alarms_now"]["value"]
    assert told["axes"][0]["logged_matches_agree_with_one_threshold"]
    patch = ["git", "apply", str(out / "policy.diff")]
    subprocess.run(patch, cwd=tmp_path, check=True, capture_output=True)
    assert policy.read_text() == (out / "policy.yaml").read_text()
    assert "# was 0.4" in policy.read_text()
    checked = CliRunner().invoke(APP, ["policy", "check", str(policy)])
    assert checked.exit_code == 0
    points = list(csv.DictReader((out / "points.csv").read_text().splitlines()))
    assert len(points) == len(told["points"]) == 19
    assert [p["embedding:maths"] for p in points if p["on_front"] == "True"] == ["0.7"]


def test_without_labels_only_shares_are_told(tmp_path: Path) -> None:
    """It says what is unknown, proposes nothing, and leaves no proposal of an earlier run."""
    log, policy, _ = labelled_log(tmp_path, 60)
    out = tmp_path / "out"
    out.mkdir()
    (out / "policy.diff").write_text("old")
    result = run("--log", log, "--policy", policy, "--threshold", WRITTEN, "--out", out)

    assert result.exit_code == 0
    assert "no labels were given" in result.stdout
    assert not (out / "policy.diff").exists()
    assert json.loads((out / "sweep.json").read_bytes())["points"][0]["caught"] is None


def test_labels_that_are_too_few_exit_4(tmp_path: Path) -> None:
    """Nothing is proposed, and how many more it takes is said."""
    log, policy, labels = labelled_log(tmp_path, 40)
    options = ("--log", log, "--policy", policy, "--threshold", WRITTEN, "--labels", labels)
    result = run(*options, "--out", tmp_path / "out")

    assert result.exit_code == 4
    assert "nothing is proposed" in result.stdout


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("request_id,label\nxyz,1\n", "row 1: request_id"),
        ("request_id,label\n" + "0" * 32 + ",maybe\n", "row 1: label"),
        ("id,label\n1,1\n", "request_id and label"),
        ("{broken\n", "line 1"),
        ("request_id,label\n", "no label"),
    ],
)
def test_labels_that_cannot_be_used_exit_2(tmp_path: Path, content: str, word: str) -> None:
    """The message names the row."""
    log, policy, labels = labelled_log(tmp_path, 10)
    labels.write_text(content)
    options = ("--log", log, "--policy", policy, "--threshold", WRITTEN, "--labels", labels)
    result = run(*options, "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert word in result.stderr


def test_a_hundred_points_cost_little_more_than_one(
    builder: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what flips is decided again: of rising thresholds, each row at most once."""
    logged = KeptLog(MemoryLog(builder.envelopes, builder.policies))
    decide, counts = Decider.decide, list[int]()

    def counted(self: Decider, rows: Asked) -> Decided:
        counts.append(len(rows.ids))
        return decide(self, rows)

    monkeypatch.setattr(Decider, "decide", counted)
    found = sweep(logged, POLICY, [axis_of("embedding:maths=0.01:0.99:100", POLICY)], nobody)

    assert len(found.points) == 101
    assert found.decisions < sum(counts) <= 2 * found.decisions
