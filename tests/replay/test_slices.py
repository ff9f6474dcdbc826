"""Verdicts by slice: rarely a false one among many, which takes the control; and true ones are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from replay.bandit import BanditLog
from replay.diagnostics import diagnose
from replay.estimators.dr import Dr
from replay.reward_model import cross_fitted
from replay.slices import Cut, Slice, holm, sliced
from signalbox import app
from tests.replay.bandits import as_table

SLICES, PER = 20, 400
DRAWS = 200


def log(seed: int, gain: float = 0.0, rows: int = SLICES * PER) -> BanditLog:
    """Return a log of sessions over which the target differs, which is worth *gain* in slice 0 alone."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(rows) // 4
    logged = np.tile([0.5, 0.5], (rows, 1))
    target = np.where((rng.random(rows) < 0.8)[:, None], [0.1, 0.9], [0.5, 0.5])
    taken = (rng.random(rows) < 0.5).astype(np.int64)
    noise = rng.normal(size=cluster[-1] + 1)[cluster] + rng.exponential(size=rows)
    labels = np.arange(rows) % SLICES
    return BanditLog(
        actions=("a", "b"),
        taken=taken,
        propensity=np.full(rows, 0.5),
        reward=noise + gain * taken * (labels == 0),
        observation=np.ones(rows),
        target=target,
        logged=logged,
        features=np.zeros((rows, 0)),
        feature_names=(),
        cluster=cluster,
    )


def slices_of(seed: int, gain: float = 0.0) -> tuple[Slice, ...]:
    """Return the slices of a log of that seed."""
    found = log(seed, gain)
    terms = Dr().terms(found, cross_fitted(found, folds=2)).difference
    cut = Cut(found, np.ones(found.n, dtype=np.bool_), terms, found.cluster)
    return sliced(cut, {"slice": [str(row % SLICES) for row in range(found.n)]})


@pytest.fixture(scope="module")
def nothing() -> list[tuple[Slice, ...]]:
    """The slices of many logs without any effect."""
    return [slices_of(seed) for seed in range(DRAWS)]


@pytest.mark.timeout(300)
def test_twenty_slices_without_effect_rarely_give_a_false_verdict(nothing: list[tuple[Slice, ...]]) -> None:
    """In at most 5 % of logs, as far as so many draws can tell; by each slice's own p, in most logs."""
    false = sum(any(each.verdict != "not_enough_evidence" for each in found) for found in nothing)
    uncontrolled = sum(any(each.p <= 0.05 for each in found) for found in nothing)

    assert all(not each.refusals for found in nothing for each in found)
    assert stats.binomtest(false, DRAWS, 0.05, "greater").pvalue > 0.001
    assert stats.binomtest(uncontrolled, DRAWS, 0.05, "greater").pvalue < 1e-9


def test_intervals_of_all_slices_hold_the_truth_together(nothing: list[tuple[Slice, ...]]) -> None:
    """In at least 95 % of logs every interval holds 0, the truth, as far as so many draws can tell."""
    missed = sum(
        any(not each.difference.low <= 0.0 <= each.difference.high for each in found) for found in nothing
    )

    assert stats.binomtest(missed, DRAWS, 0.05, "greater").pvalue > 0.001


def test_the_one_slice_with_an_effect_is_found() -> None:
    """Large enough an effect in one slice gives that slice its verdict, and no other."""
    words = {each.value: each.verdict for each in slices_of(1, gain=2.0)}

    assert words.pop("0") == "better"
    assert set(words.values()) == {"not_enough_evidence"}


def test_a_small_slice_is_refused_and_not_counted_among_the_tested() -> None:
    """It has its reasons, no p, and takes nothing from the others."""
    found = log(1)
    terms = Dr().terms(found, cross_fitted(found, folds=2)).difference
    labels = ["few" if row < 40 else str(row % 2) for row in range(found.n)]
    cut = Cut(found, np.ones(found.n, dtype=np.bool_), terms, found.cluster)
    small = {each.value: each for each in sliced(cut, {"slice": labels})}

    assert any("effective sample size" in reason for reason in small["few"].refusals)
    assert np.isnan(small["few"].adjusted)
    assert min(small["0"].adjusted, small["1"].adjusted) == pytest.approx(
        min(1.0, 2 * min(small["0"].p, small["1"].p))
    )


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_holm_is_the_step_down_procedure(p: Sequence[float]) -> None:
    """Rejecting where the adjusted p is at most alpha is rejecting in order until one fails its share."""
    adjusted = holm(p)
    rejected = {n for n, each in enumerate(adjusted) if each <= 0.05}
    expected: set[int] = set()
    for rank, number in enumerate(sorted(range(len(p)), key=lambda n: p[n])):
        if (len(p) - rank) * p[number] > 0.05:
            break
        expected.add(number)

    assert rejected == expected
    assert all(own <= each <= 1.0 for own, each in zip(p, adjusted, strict=True))


def evaluated(tmp_path: Path, table: pa.Table, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run `replay evaluate` on *table* and return exit code, JSON, and stderr."""
    path = tmp_path / "table.parquet"
    pq.write_table(table, path)
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(path), "--json", *options])
    return done.exit_code, orjson.loads(done.stdout) if done.stdout else {}, done.stderr


def test_the_command_slices_by_any_column(tmp_path: Path) -> None:
    """Several columns are one family; null is a value of its own."""
    found = log(1, gain=2.0)
    table = as_table(found).append_column("lang", pa.array(["de", None] * (found.n // 2)))
    table = table.append_column("tenant", pa.array([f"t{row % SLICES}" for row in range(found.n)]))
    _, told, _ = evaluated(tmp_path, table, "--slice", "lang", "--slice", "tenant")
    slices = told["slices"]

    assert len(slices) == 2 + SLICES
    assert {each["value"] for each in slices if each["column"] == "lang"} == {"", "de"}
    assert sum(each["rows"] for each in slices if each["column"] == "tenant") == diagnose(found).n
    assert next(each for each in slices if each["value"] == "t0")["verdict"] == "better"
    assert told["slices_control"] == "holm"


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    """Exit 2, and what there is to slice by."""
    code, _, err = evaluated(tmp_path, as_table(log(1)), "--slice", "planet")

    assert code == 2
    assert "no column 'planet' to slice by; there are: request_id, cluster, action" in err


WRONG: dict[str, tuple[str, str]] = {
    "rewards missing that never are": ("observation", "do not account for the missing rewards"),
    "propensities a fifth too low": ("propensity", "propensities are wrong"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_the_whole_log_refuses_its_slices(tmp_path: Path, name: str) -> None:
    """A part of a log whose probabilities are wrong has wrong ones too, shown by its own rows or not."""
    column, reason = WRONG[name]
    table = as_table(log(1, gain=2.0), logged=False)
    if column == "observation":
        shown = [value if row % 3 else None for row, value in enumerate(table["reward"].to_pylist())]
        table = table.set_column(table.column_names.index("reward"), "reward", pa.array(shown))
        table = table.append_column("observation", pa.array([1.0] * len(table)))
    else:
        low = np.asarray(table["propensity"]) * 0.8
        table = table.set_column(table.column_names.index("propensity"), "propensity", pa.array(low))
    table = table.append_column("tenant", pa.array([f"t{row % SLICES}" for row in range(len(table))]))
    code, told, _ = evaluated(tmp_path, table, "--slice", "tenant")

    assert code == 4
    assert {each["verdict"] for each in told["slices"]} == {"not_enough_evidence"}
    assert all(any(reason in why for why in each["refusals"]) for each in told["slices"])
    assert all(each["p"] is None for each in told["slices"])


@pytest.mark.parametrize(("interval", "code"), [("clustered_t", 0), ("bootstrap_t", 2)])
def test_slices_take_no_interval_of_another_kind(tmp_path: Path, interval: str, code: int) -> None:
    """Their p-values are of one statistic; an interval that would be ignored is refused."""
    table = as_table(log(1, gain=2.0)).append_column("tenant", pa.array(["a"] * SLICES * PER))
    found, _, err = evaluated(tmp_path, table, "--slice", "tenant", "--interval", interval)

    assert (found == 2) == (code == 2)
    assert ("--slice judges by clustered_t alone" in err) == (code == 2)
