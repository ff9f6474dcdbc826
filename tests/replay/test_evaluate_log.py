"""A policy's value from a log: the truth is found, and whatever the log cannot tell is counted and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from replay.evaluation import ALL_ROWS, OBSERVED_ROWS
from schemas.codec import Codec
from schemas.decision import Decision
from schemas.feedback import Feedback
from schemas.logdir import LogDir
from schemas.topics import FEEDBACK
from signalbox import app
from tests.replay.explored import Rating, decisions, plain, policy, rated, run, worth

LOGGING, TARGET = (0.7, 0.3), (0.9, 0.1)
GAIN = worth(*TARGET) - worth(*LOGGING)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of `signalbox run` under a policy that draws between two models; nobody rated anything."""
    return run(tmp_path_factory.mktemp("explored"), policy(*LOGGING), 1200)


@pytest.fixture(scope="module")
def log(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a rating of every request."""
    return rated(source, tmp_path_factory.mktemp("rated"))


def evaluated(tmp_path: Path, log: Path, text: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run `replay evaluate --log` under the policy in *text*; return exit code, output and stderr."""
    path = tmp_path / "target.yaml"
    path.write_text(text)
    command = ["replay", "evaluate", "--log", str(log), "--policy", str(path), "--json", *options]
    done = CliRunner().invoke(app, command)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, orjson.loads(done.stdout) if done.stdout else {}, done.stderr


def ratings_of(log: Path, path: Path, **more: object) -> Path:
    """Write the feedback of *log* as a file of ratings to *path*."""
    codec = Codec()
    records = [codec.decode_as(Feedback, envelope.value) for envelope in LogDir(log).read(FEEDBACK)]
    rows = [
        {"request_id": r.request_id.hex(), "reward": r.reward, "source": r.source} | more for r in records
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.mark.timeout(180)
def test_ratings_kept_elsewhere_say_what_those_in_the_log_say(
    tmp_path: Path, source: Path, log: Path
) -> None:
    """The same ratings from a file, over a log or an archive without any: the same estimates."""
    ratings = ratings_of(log, tmp_path / "ratings.jsonl")
    archive = str(tmp_path / "archive")
    CliRunner().invoke(app, ["replay", "archive", "--log", str(source), "--out", archive])
    by_request = ("--cluster", "request")
    _, one, _ = evaluated(tmp_path, log, policy(*TARGET), *by_request)
    for where in (source, Path(archive)):
        code, other, _ = evaluated(tmp_path, where, policy(*TARGET), "--ratings", str(ratings), *by_request)
        assert (code, other["difference"]) == (0, one["difference"])
        assert other["log"]["ratings_file"]["ratings"] == 1200
        assert len(other["log"]["ratings_file"]["sha256"]) == 64


def test_ratings_of_a_file_count_before_those_of_the_log(tmp_path: Path, log: Path) -> None:
    """A line without a time came first; one with a time came then, and may be late."""
    first = ratings_of(log, tmp_path / "first.jsonl", reward=7.0)
    later = ratings_of(log, tmp_path / "later.jsonl", reward=7.0, rated_at="2100-01-01")
    counts = {}
    for path in (first, later):
        _, found, _ = evaluated(tmp_path, log, policy(*TARGET), "--ratings", str(path))
        counts[path.stem] = (found["log"]["repeated_ratings"], found["estimators"]["snips"]["value"])

    assert counts["first"] == (1200, 7.0)
    assert counts["later"][0] == 1200
    assert counts["later"][1] < 1.0


def test_a_rating_of_a_file_may_be_late(tmp_path: Path, source: Path, log: Path) -> None:
    """A time in its line is when it came, and the horizon holds for it."""
    later = ratings_of(log, tmp_path / "later.jsonl", rated_at="2100-01-01")
    options = ("--ratings", str(later), "--horizon", "0s")
    code, found, _ = evaluated(tmp_path, source, policy(*TARGET), *options)

    assert (code, found["log"]["late"], found["log"]["rated"]) == (4, 1200, 0)


def test_a_file_that_is_not_all_ratings_is_refused(tmp_path: Path, source: Path) -> None:
    """What was left out unseen could be what matters: exit 2, with the lines."""
    ratings = tmp_path / "ratings.jsonl"
    ratings.write_text('{"request_id": "no", "reward": 1}\n')
    code, _, told = evaluated(tmp_path, source, policy(*TARGET), "--ratings", str(ratings))

    assert code == 2
    assert "line 1" in told
    absent = evaluated(tmp_path, source, policy(*TARGET), "--ratings", str(tmp_path / "absent"))
    assert absent[0] == 2
    table = ["replay", "evaluate", "--table", "t.parquet", "--ratings", str(ratings)]
    assert CliRunner().invoke(app, table).exit_code == 2


@pytest.mark.timeout(180)
def test_the_true_value_lies_within_the_interval(tmp_path: Path, log: Path) -> None:
    """From a run with a randomised selector to a verdict, with users as clusters."""
    code, found, _ = evaluated(tmp_path, log, policy(*TARGET))

    assert (code, found["verdict"], found["estimand"]) == (0, "better", ALL_ROWS)
    assert found["difference"]["dr"]["low"] < GAIN < found["difference"]["dr"]["high"]
    assert found["estimators"]["dr"]["low"] < worth(*TARGET) < found["estimators"]["dr"]["high"]
    assert (found["n"], found["clusters"], found["log"]["clustered_by"]) == (1200, 151, "subject")
    assert (found["log"]["decisions"], found["log"]["rated"], found["log"]["missing"]) == (1200, 1200, 0)
    assert found["unsupported_share"] == 0.0


def test_an_archive_says_the_same_but_for_whose_requests_they_are(tmp_path: Path, log: Path) -> None:
    """Subjects are not archived without bodies: each request is its own cluster there, and that is told."""
    archive = str(tmp_path / "archive")
    assert CliRunner().invoke(app, ["replay", "archive", "--log", str(log), "--out", archive]).exit_code == 0
    _, one, _ = evaluated(tmp_path, log, policy(*TARGET), "--cluster", "request")
    _, other, _ = evaluated(tmp_path, Path(archive), policy(*TARGET))

    assert one == other
    assert other["log"]["clustered_by"] == "request"


def test_the_saved_table_gives_the_same_estimates(tmp_path: Path, log: Path) -> None:
    """--save-table writes what --table takes: every number about quality and latency is the same."""
    path = tmp_path / "choices.parquet"
    _, one, _ = evaluated(tmp_path, log, policy(*TARGET), "--save-table", str(path))
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(path), "--json"])
    other = orjson.loads(done.stdout)

    assert other["difference"] == one["difference"]
    assert other["latency"] == one["latency"]
    assert {"cost_usd", "tenant", "decision", "x_keyword:code"} <= set(pq.read_schema(path).names)


def test_the_same_policy_differs_by_exactly_nothing(tmp_path: Path, log: Path) -> None:
    """Every weight is 1, so the paired difference is 0 for every estimator, and there is no verdict."""
    code, found, _ = evaluated(tmp_path, log, policy(*LOGGING))

    assert code == 4
    assert all(abs(each["value"]) < 1e-12 for each in found["difference"].values())
    assert found["changed_share"] == 0.0
    assert abs(found["cost"]["difference"]["dr"]["value"]) < 1e-12


def test_logged_propensities_are_those_of_the_decisions(tmp_path: Path, log: Path) -> None:
    """Of every candidate, row by row."""
    path = tmp_path / "choices.parquet"
    evaluated(tmp_path, log, policy(*TARGET), "--save-table", str(path))
    rows = {row["request_id"]: row for row in pq.read_table(path).to_pylist()}

    for decision in decisions(LogDir(log)):
        row, core = rows[decision.request_id.hex()], decision.core
        assert row["action"] == core.chosen
        assert row["propensity"] == dict(zip(core.candidates, core.propensities, strict=True))[core.chosen]
        assert [row[f"logged:{name}"] for name in core.candidates] == list(core.propensities)
        assert row["x_keyword:code"] == (core.decision == "code")


def test_cost_and_latency_are_estimated_beside(tmp_path: Path, log: Path) -> None:
    """A policy that sends everything to the large model costs more and takes longer, by so much."""
    path = tmp_path / "choices.parquet"
    _, found, _ = evaluated(tmp_path, log, policy(0.98, 0.98), "--save-table", str(path))
    rows = pq.read_table(path).to_pylist()

    for name, column in (("cost", "cost_usd"), ("latency", "latency_ms")):
        means = {
            model: np.mean([row[column] for row in rows if row["action"] == model])
            for model in ("north-large", "north-small")
        }
        gain = (0.98 - 0.5) * (means["north-large"] - means["north-small"])
        section = found[name]
        assert section["verdict"] == "higher"
        assert section["difference"]["dr"]["low"] < gain < section["difference"]["dr"]["high"]
        assert section["needs"]["pairs"] is None
    assert found["cost"]["model"].startswith("known prices")
    assert any("shared capacity" in note for note in found["notes"])


def test_a_log_without_feedback_has_costs_and_no_verdict(tmp_path: Path, source: Path) -> None:
    """Nobody rated: exit 4 and say so, but what it would cost can be told."""
    code, found, _ = evaluated(tmp_path, source, policy(0.98, 0.98))

    assert (code, found["verdict"], found["log"]["rated"]) == (4, "not_enough_evidence", 0)
    assert found["difference"]["dr"]["value"] is None
    assert found["cost"]["verdict"] == "higher"


def test_missing_rewards_of_known_probability_do_not_bias(tmp_path: Path, source: Path) -> None:
    """Good answers are rated more often; where the probability is known the truth is found."""

    def biased(decision: Decision, rng: np.random.Generator) -> Rating:
        found = plain(decision, rng)
        shown_with = 0.9 if found.reward > 0.6 else 0.5
        return replace(found, observation=shown_with, shown=bool(rng.random() < shown_with))

    log = rated(source, tmp_path / "log", biased)
    _, found, _ = evaluated(tmp_path, log, policy(*TARGET))

    assert found["estimand"] == ALL_ROWS
    assert found["missing_share"] > 0.2
    assert found["estimators"]["dr"]["low"] < worth(*TARGET) < found["estimators"]["dr"]["high"]


def test_feedback_of_unknown_observation_is_a_value_of_its_own(tmp_path: Path, source: Path) -> None:
    """Users rate when they please: the estimand is the value among those who do, by name."""

    def some(decision: Decision, rng: np.random.Generator) -> Rating:
        return replace(plain(decision, rng), shown=bool(rng.random() < 0.5))

    log = rated(source, tmp_path / "log", some)
    _, found, _ = evaluated(tmp_path, log, policy(*TARGET))

    assert found["estimand"] == OBSERVED_ROWS
    assert found["log"]["observation_unknown"] == found["log"]["rated"]
    assert found["log"]["missing"] == 1200 - found["log"]["rated"] > 400


def test_late_feedback_is_missing_and_counted(tmp_path: Path, source: Path) -> None:
    """What arrives after the horizon does not count, and requests too young to be judged are left out."""

    def slow(decision: Decision, rng: np.random.Generator) -> Rating:
        late = decision.request_id[0] < 64
        return replace(plain(decision, rng), after_ms=7_200_000 if late else 60_000)

    log = rated(source, tmp_path / "log", slow)
    _, found, _ = evaluated(tmp_path, log, policy(*TARGET), "--horizon", "1h")
    code, young, err = evaluated(tmp_path, log, policy(*TARGET), "--horizon", "7d")

    assert 200 < found["log"]["late"] < 400
    assert found["log"]["missing"] == found["log"]["late"]
    assert (code, young) == (4, {})
    assert "younger than the horizon" in err


def test_feedback_by_several_metrics_must_be_chosen_from(tmp_path: Path, source: Path) -> None:
    """Exit 2 with their names; --reward chooses."""

    def either(decision: Decision, rng: np.random.Generator) -> Rating:
        return replace(plain(decision, rng), metric="tone" if decision.request_id[0] % 2 else "quality")

    log = rated(source, tmp_path / "log", either)
    code, _, err = evaluated(tmp_path, log, policy(*TARGET))
    _, found, _ = evaluated(tmp_path, log, policy(*TARGET), "--reward", "tone")
    absent, _, other = evaluated(tmp_path, log, policy(*TARGET), "--reward", "taste")

    assert (code, absent) == (2, 2)
    assert "quality, tone; choose one with --reward" in err
    assert "no feedback with metric 'taste'; it has: quality, tone" in other
    assert found["log"]["reward"] == "tone"
    assert 0 < found["log"]["rated"] < 1200


def test_a_policy_that_needs_unlogged_signals_gets_no_verdict(tmp_path: Path, log: Path) -> None:
    """Unknown is not no-match: exit 4, with the share and the signal."""
    text = policy(*TARGET).replace("name: code, operator", "name: novel, operator")
    text = text.replace("type: keyword, name: code}", "type: keyword, name: novel}")
    code, found, _ = evaluated(tmp_path, log, text)

    assert (code, found["verdict"]) == (4, "not_enough_evidence")
    assert any("100.00% of decisions need signals" in reason for reason in found["refusals"])
    assert found["log"]["unknown_signals"] == {"keyword:novel": 1200}


@pytest.mark.timeout(180)
def test_a_log_that_explores_tells_what_never_exploring_is_worth(tmp_path: Path) -> None:
    """Propensities are the mixture's: a sure choice explored with 0.6 is logged with 0.7, not with 1."""
    explored = "{epsilon: 0.6, candidates: [north-large, north-small]}"
    section = f"max_extra_usd_per_day: 500.0, decisions: {{code: {explored}, rest: {explored}}}"
    source = run(tmp_path, policy(1.0, 0.0) + f"exploration: {{{section}}}\n", 600)
    log, table = rated(source, tmp_path / "rated"), tmp_path / "t.parquet"
    _, found, _ = evaluated(tmp_path, log, policy(0.0, 0.0), "--save-table", str(table))
    truth = worth(0.0, 0.0) - worth(0.7, 0.3)

    assert {round(p, 9) for p in pq.read_table(table)["propensity"].to_pylist()} == {0.3, 0.7}
    assert found["difference"]["dr"]["low"] < truth < found["difference"]["dr"]["high"]
    assert found["unsupported_share"] == 0.0


@pytest.mark.parametrize(
    "options",
    [
        ["--log", "nowhere", "--policy", "target.yaml"],
        ["--log", "."],
        ["--policy", "target.yaml"],
        [],
        ["--table", "x.parquet", "--log", "."],
        ["--log", ".", "--policy", "target.yaml", "--horizon", "soon"],
        ["--log", ".", "--policy", "target.yaml", "--cluster", "planet"],
        ["--log", ".", "--policy", "absent.yaml"],
    ],
)
def test_what_cannot_be_used_exits_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """A message and no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target.yaml").write_text(policy(*TARGET))
    done = CliRunner().invoke(app, ["replay", "evaluate", *options])

    assert done.exit_code == 2
    assert done.stderr.startswith("replay evaluate: ")
