"""A policy's value from a flat table: what is refused, what is found, what is printed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

import replay.estimators
from agents.errors import InvalidRecord
from replay.bandit import BanditLog
from replay.diagnostics import diagnose
from replay.estimators import Model, estimator
from replay.evaluation import OBSERVED_ROWS, Method, evaluate
from replay.intervals import Clustered
from replay.table import table_of
from signalbox import app
from tests.replay.bandits import as_table, made, model_for

estimator.load(replay.estimators)


def large(seed: int = 1, gain: float = 1.0, rows: int = 4000) -> BanditLog:
    """Return a log whose target takes the best action more often; *gain* scales what that is worth."""
    rng = np.random.default_rng(seed)
    log = made(seed, rows)
    target = np.full((rows, 3), 0.1)
    target[:, 2] = 0.8
    reward = gain * (log.taken == 2) + rng.normal(size=rows)
    return replace(log, target=target, reward=reward)


def run(tmp_path: Path, table: pa.Table, *options: str) -> tuple[int, dict[str, Any]]:
    """Run `replay evaluate --json` on *table*; return the exit code and what it printed."""
    path = tmp_path / "table.parquet"
    pq.write_table(table, path)
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(path), "--json", *options])
    return done.exit_code, orjson.loads(done.stdout) if done.stdout else {}


def test_a_clearly_better_policy_is_called_better(tmp_path: Path) -> None:
    """The verdict is on the paired difference of the default method, and exits with 0."""
    code, found = run(tmp_path, as_table(large()))

    assert (code, found["verdict"]) == (0, "better")
    assert found["difference"]["dr"]["low"] > 0
    assert set(found["estimators"]) == set(found["difference"]) == {name for name, _ in estimator}
    assert found["needs"] == {"rows": 0, "pairs": 0}


def test_a_clearly_worse_policy_is_called_worse(tmp_path: Path) -> None:
    """A negative difference whose interval leaves 0 is a verdict too."""
    code, found = run(tmp_path, as_table(large(gain=-1.0)))

    assert (code, found["verdict"]) == (0, "worse")


def test_no_difference_is_not_enough_evidence_and_says_what_would_be(tmp_path: Path) -> None:
    """Exit 4, with further rows and judged pairs for the difference that matters."""
    code, found = run(tmp_path, as_table(large(gain=0.0)), "--detect", "0.02")

    assert (code, found["verdict"]) == (4, "not_enough_evidence")
    assert found["needs"]["rows"] > 1000
    assert found["needs"]["pairs"] > 100
    assert "more rows" in found["sentence"]


def test_so_many_more_rows_find_a_difference_four_times_in_five() -> None:
    """What is asked for is what `replay plan` would plan: a power of 80 %, not an even chance."""
    seen = evaluate(large(gain=0.0), Method(detect=0.05))
    rows, asked = seen.diagnostics.n, seen.verdict.needs.rows
    error = seen.differences["dr"].half / 1.96 * math.sqrt(rows / (rows + asked))

    assert asked > 1
    assert NormalDist(0.05, error).cdf(1.96 * error) == pytest.approx(0.2, abs=0.005)


def test_needs_shrink_as_what_matters_grows() -> None:
    """A coarser question takes fewer rows."""
    fine, coarse = (evaluate(large(gain=0.0), Method(detect=d)).verdict.needs for d in (0.02, 0.2))

    assert fine.rows > 10 * coarse.rows
    assert fine.pairs is not None
    assert coarse.pairs is not None
    assert fine.pairs > 10 * coarse.pairs


def test_a_small_effective_sample_size_is_refused(tmp_path: Path) -> None:
    """However large the difference: below 200 there is no verdict."""
    log = large(gain=50.0, rows=150)
    code, found = run(tmp_path, as_table(log))

    assert (code, found["verdict"]) == (4, "not_enough_evidence")
    assert any("effective sample size" in reason for reason in found["refusals"])


def test_traffic_that_was_never_explored_is_refused(tmp_path: Path) -> None:
    """A deterministic logging policy supports no other, and the share is told."""
    log = large()
    assert log.logged is not None
    logged = np.eye(3)[log.taken]
    moved = np.eye(3)[np.where(np.arange(log.n) % 4 == 0, (log.taken + 1) % 3, log.taken)]
    code, found = run(
        tmp_path, as_table(replace(log, logged=logged, propensity=np.ones(log.n), target=moved))
    )

    assert (code, found["verdict"]) == (4, "not_enough_evidence")
    assert found["unsupported_share"] == pytest.approx(0.25)


def test_unsupported_share_is_unknown_without_the_logging_policy(tmp_path: Path) -> None:
    """Nobody can tell from the taken actions alone."""
    _, found = run(tmp_path, as_table(large(), logged=False))

    assert found["unsupported_share"] is None


def test_wrong_propensities_are_noticed(tmp_path: Path) -> None:
    """Weights that do not average to 1 refuse the verdict."""
    table = as_table(large(), logged=False)
    halved = table.set_column(
        table.column_names.index("propensity"), "propensity", pa.array(np.asarray(table["propensity"]) / 2)
    )
    code, found = run(tmp_path, halved)

    assert code == 4
    assert any("propensities are wrong" in reason for reason in found["refusals"])


def test_missing_rewards_with_known_probability_are_made_up_for() -> None:
    """Rewards that are observed more often when high do not lift the estimate."""
    errors = []
    for seed in range(30):
        log = made(seed, rows=1500, missing=True)
        truth = float((log.target * (log.features[:, :1] + np.arange(3))).sum(axis=1).mean())
        found = evaluate(log, Method()).values["dr"]
        errors.append((found.value - truth) / found.half)

    assert abs(np.mean(errors)) < 0.35


def test_feedback_of_unknown_observation_is_another_estimand(tmp_path: Path) -> None:
    """Without the probability of observing a reward, only observed rows are spoken of, and by name."""
    table = as_table(made(1, rows=3000, missing=True)).drop_columns(["observation"])
    _, found = run(tmp_path, table)

    assert found["estimand"] == OBSERVED_ROWS
    assert found["missing_share"] > 0.1


def test_a_model_of_yours_replaces_the_fitted_one(tmp_path: Path) -> None:
    """Columns model:<action> are taken as predictions: DR equals the formula with them."""
    log, model = large(), model_for(large())
    table = as_table(log)
    for number, action in enumerate(log.actions):
        table = table.append_column(f"model:{action}", pa.array(model.predicted[:, number]))
    _, found = run(tmp_path, table)

    expected = (log.target * model.predicted).sum(axis=1) + log.weight * (
        log.reward - model.predicted[np.arange(log.n), log.taken]
    )
    assert found["estimators"]["dr"]["value"] == pytest.approx(expected.mean(), rel=1e-12)


def test_later_copies_of_a_request_are_left_out(tmp_path: Path) -> None:
    """First in the table wins, and the copies are counted."""
    table = as_table(large())
    doubled = pa.concat_tables([table, table.slice(0, 100)])
    _, found = run(tmp_path, doubled)

    assert (found["n"], found["duplicates"]) == (4000, 100)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("propensity", [0.0], r"'propensity': not in \(0, 1\] in 1 rows, first r0"),
        ("propensity", [None], "'propensity': null"),
        ("target:m0", [0.99], "do not sum to 1"),
        ("target:m0", [-0.5], r"not in \[0, 1\]"),
        ("logged:m0", [0.0], "do not sum to 1"),
        ("reward", [float("inf")], "'reward': not finite"),
        ("action", [None], "'action' has nulls"),
        ("cluster", [None], "'cluster' has nulls"),
        ("request_id", [None], "'request_id' has nulls"),
    ],
)
def test_a_bad_value_is_named_with_its_column_and_row(column: str, values: list[Any], message: str) -> None:
    """What is wrong, where, and in how many rows."""
    table = as_table(made(1))
    changed = [*values, *table[column].to_pylist()[len(values) :]]
    bad = table.set_column(table.column_names.index(column), column, pa.array(changed))

    with pytest.raises(InvalidRecord, match=message):
        table_of(bad)


@pytest.mark.parametrize("column", ["request_id", "action", "propensity", "reward"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    """Exit 2, and the message lists what is required."""
    path = tmp_path / "t.parquet"
    pq.write_table(as_table(made(1)).drop_columns([column]), path)
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(path)])

    assert done.exit_code == 2
    assert f"no column '{column}'" in done.stderr


def test_text_and_absent_features_are_used() -> None:
    """Text becomes its levels, an absent number its mean with a mark."""
    table = as_table(made(1)).append_column("x_lang", pa.array(["de", "en"] * 100))
    table = table.append_column("x_len", pa.array([None, 2.0] * 100))
    names = table_of(table).log.feature_names

    assert names[-4:] == ("x_lang=de", "x_lang=en", "x_len", "x_len=absent")


def test_rows_that_agree_carry_no_difference() -> None:
    """Effective sample size alone misleads: a few changed rows among many equal ones carry all."""
    log = large(rows=20_000)
    assert log.logged is not None
    logged = np.tile([0.98, 0.01, 0.01], (log.n, 1))
    rng = np.random.default_rng(1)
    taken = (rng.random(log.n)[:, None] > logged.cumsum(axis=1)[:, :-1]).sum(axis=1)
    target = np.where((np.arange(log.n) % 200 == 0)[:, None], np.eye(3)[2], np.eye(3)[0])
    found = diagnose(
        replace(log, logged=logged, taken=taken, propensity=logged[np.arange(log.n), taken], target=target)
    )

    assert found.carrying < 5
    assert any("carry the difference" in reason for reason in found.refusals)


def explored(seed: int, rate: float, sessions: int | None = None, epsilon: float = 0.05) -> BanditLog:
    """Return 5,000 rows that explored, of which *rate* are rated (known), by rows or *sessions*."""
    rng = np.random.default_rng(seed)
    rows = 5000
    cluster = np.arange(rows) if sessions is None else np.arange(rows) * sessions // rows
    logged = np.tile([1.0 - epsilon, epsilon], (rows, 1))
    taken = (rng.random(rows) < logged[0, 1]).astype(np.int64)
    shown = (rng.random(int(cluster[-1]) + 1) < rate)[cluster]
    return BanditLog(
        actions=("small", "large"),
        taken=taken,
        propensity=logged[np.arange(rows), taken],
        reward=np.where(shown, rng.lognormal(size=rows), np.nan),
        observation=np.full(rows, rate),
        target=np.tile([0.0, 1.0], (rows, 1)),
        logged=logged,
        features=np.zeros((rows, 0)),
        feature_names=(),
        cluster=cluster,
    )


def test_rows_without_a_reward_carry_nothing() -> None:
    """Of 250 explored rows a twentieth has a rating: a dozen rows are no evidence."""
    rated, few = (evaluate(explored(1, rate), Method()) for rate in (1.0, 0.05))

    assert rated.diagnostics.carrying > 200
    assert few.diagnostics.carrying == pytest.approx(rated.diagnostics.carrying / 20, rel=0.2)
    assert any("carry the difference" in reason for reason in few.verdict.refusals)
    assert few.verdict.needs.rows > few.diagnostics.n


def test_intervals_of_few_ratings_are_rarely_wrong() -> None:
    """Policies that are alike in truth get no verdict from logs in which one request of twenty is rated."""
    words = [evaluate(explored(seed, 0.05), Method()).verdict.word for seed in range(40)]

    assert set(words) == {"not_enough_evidence"}


def test_rows_that_are_rarely_rated_carry_the_noise_of_many() -> None:
    """Ratings of one in fifty stand for fifty each: beside common ones, these few carry the difference."""
    log = explored(2, 1.0)
    rare = np.arange(log.n) % 50 == 0
    rate = np.where(rare, 0.02, 1.0)
    found = diagnose(replace(log, observation=rate)).carrying

    assert diagnose(log).carrying == pytest.approx(278, rel=0.05)
    assert found < 10
    assert diagnose(replace(log, observation=rate, logged=None)).carrying < 15


def test_sessions_without_a_reward_are_not_counted() -> None:
    """A log of 300 sessions of which some fifteen were rated is one of fifteen, and says so."""
    found = evaluate(explored(4, 0.05, sessions=300), Method())
    told = found.as_json()

    assert told["clusters"] == 300
    assert told["clusters_observed"] < 20
    assert any("clusters with a reward, fewer than 20" in reason for reason in told["refusals"])


def test_an_interval_has_the_freedom_of_rated_sessions() -> None:
    """It is as wide as Student's t of the sessions with a rating, where those are fewer than what carries."""
    log = explored(4, 0.1, sessions=300, epsilon=0.5)
    found = evaluate(log, Method(), model=Model(np.zeros((log.n, 2))))
    seen = found.diagnostics
    data = Clustered.of((log.weight - 1.0) * log.inverse_observation * log.filled, log.cluster)

    assert 20 < seen.clusters_observed < min(seen.carrying, 60)
    assert found.differences["dr"].half == pytest.approx(
        data.error * stats.t.ppf(0.975, seen.clusters_observed - 1), rel=1e-9
    )


def test_switch_dr_drops_weights_only_where_that_moves_nothing() -> None:
    """SLOPE keeps the corrections where the model alone would disagree."""
    log = large(gain=3.0)
    wrong = Model(np.zeros((log.n, 3)))

    doubly, switched = (estimator[n]().terms(log, wrong).value.mean() for n in ("dr", "switch_dr"))

    assert switched == pytest.approx(doubly, rel=0.15)
