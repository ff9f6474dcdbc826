"""Whatever is wrong with a table: an error that names it, or a refusal; no traceback, no false verdict."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import replay.estimators
from agents.errors import InvalidRecord
from replay.bandit import BanditLog
from replay.estimators import estimator
from replay.evaluate_report import reported
from replay.evaluation import Method, evaluate
from replay.table import table_of
from signalbox import app
from tests.replay.bandits import as_table, made

estimator.load(replay.estimators)
Change = Callable[[pa.Table], pa.Table]


def put(name: str, values: Any) -> Change:
    """Return a change that sets column *name*, or adds it."""

    def change(table: pa.Table) -> pa.Table:
        column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, column)
        return table.append_column(name, column)

    return change


def first(name: str, value: Any) -> Change:
    """Return a change of the first value of column *name*."""
    return lambda table: put(name, pa.array([value, *table[name].to_pylist()[1:]]))(table)


def without(*names: str) -> Change:
    """Return a change that leaves out the columns that begin with *names*."""
    return lambda table: table.drop_columns([n for n in table.column_names if n.startswith(names)])


def evaluated(tmp_path: Path, table: pa.Table, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run the command on *table*; any exception but an exit fails the test."""
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(path), "--json", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, orjson.loads(done.stdout) if done.stdout else {}, done.stderr


N = 400
ERRORS: dict[str, tuple[Change, str]] = {
    "no target at all": (without("target:"), "no column target:<action>"),
    "a target that sums to less": (put("target:m0", [0.0] * N), "do not sum to 1"),
    "a logging policy that sums to more": (put("logged:m0", [1.0] * N), "do not sum to 1"),
    "a null target": (first("target:m0", None), "'target:m0': null or not a number"),
    "a null logging probability": (first("logged:m0", None), "'logged:m0': null or not a number"),
    "a target of NaN": (first("target:m0", float("nan")), "null or not a number"),
    "a target of infinity": (first("target:m0", float("inf")), "not in [0, 1]"),
    "a propensity of 0": (first("propensity", 0.0), "not in (0, 1]"),
    "a propensity of NaN": (first("propensity", float("nan")), "null or not a number"),
    "a propensity that no draw has": (first("propensity", 1e-300), "below 1e-12"),
    "a propensity that is another": (first("propensity", 0.123), "differs from logged:<action>"),
    "an infinite reward": (first("reward", float("-inf")), "not finite"),
    "an absurd reward": (first("reward", 1e200), "beyond 1e+100"),
    "rewards in words": (put("reward", ["good"] * N), "holds string, not numbers"),
    "rewards in lists": (put("reward", [[1.0]] * N), "not numbers"),
    "ids that are lists": (put("request_id", [[n] for n in range(N)]), "'request_id' holds list"),
    "actions that are structs": (put("action", [{"m": 1}] * N), "'action' holds struct"),
    "clusters that are lists": (put("cluster", [[n] for n in range(N)]), "'cluster' holds list"),
    "null clusters": (first("cluster", None), "'cluster' has nulls"),
    "features in lists": (put("x_many", [[1.0, 2.0]] * N), "'x_many' holds list"),
    "an observation of 0": (put("observation", [0.0] * N), "'observation': not in (0, 1]"),
    "a null observation": (
        put("observation", pa.array([None] * N, pa.float64())),
        "'observation'",
    ),
    "a model without an action": (put("model:m0", [0.0] * N), "none for action 'm1'"),
    "a negative cost": (put("cost_usd", [-1.0] * N), "'cost_usd': negative"),
    "a column twice": (lambda t: t.append_column("action", t["action"]), "FieldRef.Name(action)"),
    "no rows": (lambda t: t.slice(0, 0), "has no rows"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_table_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """Exit 2, with the column and what is wrong with it."""
    change, message = ERRORS[name]
    code, _, err = evaluated(tmp_path, change(as_table(made(1, N))))

    assert code == 2
    assert message in err


def clear() -> BanditLog:
    """Return a log on which the target is plainly better."""
    log = made(3, N * 10)
    target = np.full((log.n, 3), 0.1)
    target[:, 2] = 0.8
    return replace(log, target=target)


def unsupported(table: pa.Table) -> pa.Table:
    """Return *table* with a fourth action that was never logged and that the target takes in 10 %."""
    for name in [n for n in table.column_names if n.startswith("target:")]:
        table = put(name, np.asarray(table[name]) * 0.9)(table)
    return put("logged:m9", [0.0] * len(table))(put("target:m9", [0.1] * len(table))(table))


def nothing_supported(table: pa.Table) -> pa.Table:
    """Return *table* with a fourth action that was never logged, which is all that the target takes."""
    for name in [n for n in table.column_names if n.startswith("target:")]:
        table = put(name, [0.0] * len(table))(table)
    return put("logged:m9", [0.0] * len(table))(put("target:m9", [1.0] * len(table))(table))


def rare(table: pa.Table) -> pa.Table:
    """Return *table* with one row that was taken with a chance of one in a hundred million."""
    return first("propensity", 1e-8)(without("logged:")(table))


def everywhere(name: str, value: Any) -> Change:
    """Return a change that gives all rows the same *value*."""
    return lambda table: put(name, pa.array([value] * len(table)))(table)


REFUSED: dict[str, tuple[Change, str]] = {
    "one cluster": (everywhere("cluster", "s"), "clusters"),
    "one row": (lambda t: t.slice(0, 1), "effective sample size is 1"),
    "two rows": (lambda t: t.slice(0, 2), "effective sample size"),
    "equal rewards": (everywhere("reward", 0.1), "no more than rounding"),
    "rewards of 0": (everywhere("reward", 0.0), "no more than rounding"),
    "no rewards": (everywhere("reward", None), "no row has both a reward"),
    "rewards of NaN": (everywhere("reward", float("nan")), "no row has both a reward"),
    "never logged": (unsupported, "10.0% of the target's choices were never logged"),
    "nothing supported": (nothing_supported, "100.0% of the target's choices were never logged"),
    "a huge weight": (rare, "effective sample size is 1"),
    "observation that is not so": (
        lambda t: everywhere("observation", 1.0)(put("reward", [None, 5.0] * (len(t) // 2))(t)),
        "do not account for the missing rewards",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("model", ["ridge", "boosting"])
def test_a_table_that_cannot_tell_gets_no_verdict(tmp_path: Path, name: str, model: str) -> None:
    """Exit 4 with the reason, and JSON in which every number is one or null."""
    change, reason = REFUSED[name]
    code, found, err = evaluated(tmp_path, change(as_table(clear())), "--model", model)

    assert (code, found["verdict"]) == (4, "not_enough_evidence"), err
    assert any(reason in each for each in found["refusals"])
    assert found["needs"]["rows"] >= 1


HARMLESS: dict[str, Change] = {
    "nothing": lambda t: t,
    "whole numbers as ids": lambda t: put("request_id", range(len(t)))(t),
    "bytes as ids": lambda t: put("request_id", [n.to_bytes(4, "big") for n in range(len(t))])(t),
    "whole numbers as clusters": lambda t: put("cluster", range(len(t)))(t),
    "coded actions": lambda t: put("action", t["action"].combine_chunks().dictionary_encode())(t),
    "absurd features": first("x_0", 1e300),
    "features of NaN and infinity": lambda t: put("x_0", [float("nan"), float("inf")] * (len(t) // 2))(t),
    "features without any value": everywhere("x_0", None),
    "features of text, in views": lambda t: put(
        "x_0", pa.array(["a", "b"] * (len(t) // 2), pa.string_view())
    )(t),
    "features that never vary": everywhere("x_0", 7.0),
    "no features": without("x_"),
    "yes and no as features": lambda t: put("x_flag", [True, False] * (len(t) // 2))(t),
    "single precision": lambda t: put("reward", t["reward"].cast(pa.float32()))(t),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_matter_does_not_matter(tmp_path: Path, name: str) -> None:
    """Other types and useless features: the verdict stands."""
    code, found, err = evaluated(tmp_path, HARMLESS[name](as_table(clear())))

    assert (code, found["verdict"]) == (0, "better"), err


@pytest.mark.parametrize(
    ("change", "least"),
    [("no rewards", 200), ("nothing supported", 200), ("one cluster", 19 * N * 10)],
)
def test_what_is_lacking_is_asked_for(tmp_path: Path, change: str, least: int) -> None:
    """Without any evidence that is the least sample; with one cluster of twenty 19 times the rows."""
    _, found, _ = evaluated(tmp_path, REFUSED[change][0](as_table(clear())))

    assert found["needs"]["rows"] >= least


@pytest.mark.parametrize("change", ["never logged", "observation that is not so", "equal rewards"])
def test_no_rows_are_asked_for_that_would_not_help(tmp_path: Path, change: str) -> None:
    """What is wrong with the log as a whole is wrong with more of it; the sentence says so."""
    _, found, _ = evaluated(tmp_path, REFUSED[change][0](as_table(clear())))

    assert "would not change that" in found["sentence"]
    assert "It needs about" not in found["sentence"]


def test_a_negative_seed_is_a_usage_error(tmp_path: Path) -> None:
    """It exits with 2, whether or not a model is fitted."""
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(tmp_path / "t"), "--seed", "-1"])

    assert (done.exit_code, "--seed" in done.stderr) == (2, True)


def test_numbered_actions_are_read_as_their_text() -> None:
    """Actions 0, 1, 2 go with columns target:0, target:1, target:2."""
    log = clear()
    table = as_table(replace(log, actions=("0", "1", "2")))
    numbered = put("action", [int(a) for a in table["action"].to_pylist()])(table)

    assert table_of(numbered).log.actions == ("0", "1", "2")


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + bytes(100)])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Exit 2, also for a folder and for nothing at all."""
    path = tmp_path / "t.parquet"
    path.write_bytes(content)

    for where in (path, tmp_path, tmp_path / "absent.parquet"):
        done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(where)])
        assert done.exit_code == 2
        assert done.stderr.startswith("replay evaluate: ")


VALUES = st.sampled_from(
    [None, float("nan"), float("inf"), -1.0, 0.0, 1e-320, 1e-9, 0.3, 1.0, 1.5, 1e99, 1e308, -1e308]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_table_ends_in_a_traceback_or_in_a_verdict_from_spoiled_numbers(data: st.DataObject) -> None:
    """Spoil cells of any columns of a log without any effect: an error of ours, or a refusal."""
    rows = data.draw(st.integers(1, 40))
    log = made(data.draw(st.integers(0, 5)), rows)
    table = as_table(log)
    names = ["propensity", "reward", "target:m0", "logged:m1", "x_0", "observation", "cost_usd"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3)):
        own = table[name].to_pylist() if name in table.column_names else [0.5] * rows
        for at in data.draw(st.lists(st.integers(0, rows - 1), max_size=3)):
            own[at] = data.draw(VALUES)
        table = put(name, pa.array(own, pa.float64()))(table)
    try:
        found = reported(table_of(table), Method(folds=2))
    except InvalidRecord:
        return

    assert found.code == 4
    orjson.dumps(found.as_json())


def test_equal_policies_get_no_verdict_from_rounding() -> None:
    """Probabilities that differ in the last digit make weights of almost 1, whose differences are no news."""
    log = made(1, 3000)
    assert log.logged is not None
    wobble = 1.0 + 1e-15 * np.random.default_rng(1).choice([-1, 1], log.logged.shape)
    found = evaluate(replace(log, target=log.logged * wobble), Method())

    assert found.verdict.word == "not_enough_evidence"


def test_rows_in_another_order_give_the_same_weights() -> None:
    """Nothing but folds depends on the order: the estimators without a model agree to rounding."""
    log = clear()
    order = np.random.default_rng(1).permutation(log.n)
    one, other = (evaluate(each, Method()) for each in (log, log.rows(order)))

    for name, end in itertools.product(("ips", "snips", "clipped_ips"), ("value", "low", "high")):
        assert getattr(one.differences[name], end) == pytest.approx(getattr(other.differences[name], end))
