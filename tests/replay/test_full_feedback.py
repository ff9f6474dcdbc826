"""Full outcome tables: what is read or refused, the policies beside, and intervals that hold the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import replay.estimators
from agents.errors import InvalidRecord
from replay.calibration.run import coverage, problems
from replay.estimators import estimator
from replay.full_feedback import Outcomes, drawn, flat, outcomes_of, read_outcomes
from replay.full_feedback_bench import Trial, evaluated
from signalbox import app
from tests.replay.outcome_tables import TABLES

estimator.load(replay.estimators)
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def table(questions: int = 600, seed: int = 3) -> pa.Table:
    """Return an invented table of four models, of which the best depends on the kind of question."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(questions):
        kind, hard = ("code", "prose")[number % 2], float(rng.random())
        for model, skill in (("a", 0.8), ("b", 0.7), ("c", 0.5), ("d", 0.3)):
            right = skill - 0.4 * hard + (0.3 if (model == "b") == (kind == "code") else -0.1)
            score = float(rng.random() < right)
            rows.append(
                {
                    "question": number,
                    "model": model,
                    "score": score,
                    "cost": skill,
                    "x_kind": kind,
                    "x_hard": hard,
                }
            )
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def found() -> Outcomes:
    """The outcomes of that table."""
    return outcomes_of(table())


def test_values_of_the_reference_policies_are_those_of_the_table(found: Outcomes) -> None:
    """Best single model, random and oracle, reckoned from the rows themselves; the oracle is never beaten."""
    rows = table().to_pylist()
    by_model = {m: np.mean([r["score"] for r in rows if r["model"] == m]) for m in "abcd"}
    by_question: dict[int, float] = {}
    for row in rows:
        by_question[row["question"]] = max(by_question.get(row["question"], 0.0), row["score"])
    value = {name: found.value(policy) for name, policy in found.references.items()}

    assert value["best_single"] == pytest.approx(max(by_model.values()))
    assert value["random"] == pytest.approx(np.mean([r["score"] for r in rows]))
    assert value["oracle"] == pytest.approx(np.mean(list(by_question.values())))
    assert value["best_single"] < found.value(found.router) < value["oracle"]
    assert found.cost(found.references["random"]) == pytest.approx(np.mean([r["cost"] for r in rows]))


def test_a_csv_file_reads_as_the_same(tmp_path: Path, found: Outcomes) -> None:
    """By its name; Parquet otherwise."""
    pyarrow.csv.write_csv(table(), tmp_path / "t.csv")
    pq.write_table(table(), tmp_path / "t.parquet")

    for name in ("t.csv", "t.parquet"):
        other = read_outcomes(tmp_path / name)
        assert (other.questions, other.models) == (found.questions, found.models)
        assert np.array_equal(other.scores, found.scores)


def test_copies_and_incomplete_questions_and_models_are_left_out_and_told() -> None:
    """The first copy counts; a model with few answers goes before the questions that it lacks do."""
    rows = table(100).to_pylist()
    rows = [row for row in rows if not (row["model"] == "d" and row["question"] >= 20)]
    rows = [row for row in rows if not (row["model"] == "a" and row["question"] == 7)]
    rows.append({**rows[0], "score": 1.0 - rows[0]["score"]})
    made = outcomes_of(pa.Table.from_pylist(rows))

    assert (made.models, made.left_out) == (("a", "b", "c"), ("d",))
    assert (made.incomplete, made.copies, len(made.questions)) == (1, 1, 99)
    assert made.scores[0, 0] == rows[0]["score"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["score"]), "no column 'score'"),
        (lambda t: t.slice(0, 0), "has no rows"),
        (lambda t: t.set_column(2, "score", pa.array(["x"] * len(t))), "holds string, not numbers"),
        (lambda t: t.set_column(2, "score", pa.array([float("nan")] * len(t))), "not finite"),
        (lambda t: t.set_column(1, "model", pa.array([None] * len(t), pa.string())), "'model' has nulls"),
        (
            lambda t: t.set_column(1, "model", pa.array([f"m{n}" for n in range(len(t))])),
            "no model has a score on 95%",
        ),
    ],
)
def test_what_is_no_outcome_table_is_refused(change: Any, message: str) -> None:
    """With the column and what is wrong."""
    with pytest.raises(InvalidRecord, match=message):
        outcomes_of(change(table(30)))


def test_a_log_has_the_logging_policys_frequencies(found: Outcomes) -> None:
    """What is drawn is what the stated propensities say."""
    logging = found.exploring(0.4)
    log = drawn(found, logging, found.router, 40_000, np.random.default_rng(1)).log
    shares = np.bincount(log.taken, minlength=4) / log.n

    assert np.allclose(shares, logging.mean(axis=0), atol=0.01)
    assert np.allclose(1.0 / log.n * (1.0 / log.propensity).sum(), 4.0, atol=0.1)


@pytest.mark.timeout(300)
def test_intervals_hold_the_known_truth(found: Outcomes) -> None:
    """220 logs of the invented table: coverage compatible with 93 to 97 %, and no bias to speak of."""
    trial = Trial(1500, 0.5)
    rows = [evaluated(found, trial, seed) for seed in range(220)]
    cell = coverage(trial.cell, rows)

    assert cell.judged
    assert problems([cell]) == []
    assert abs(cell.bias) < 0.01


def test_a_log_that_is_too_small_is_refused(found: Outcomes) -> None:
    """A tenth of 300 rows over four models can tell nothing of the router."""
    row = evaluated(found, Trial(300, 0.1), 1)

    assert row.refusals
    assert np.isnan(row.low)


def run(*arguments: str) -> tuple[int, str, str]:
    """Run `bench outcomes`; return exit code and what it printed."""
    done = CliRunner().invoke(app, ["bench", "outcomes", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_a_log_that_evaluate_takes(tmp_path: Path, found: Outcomes) -> None:
    """From outcomes to a verdict: the truth lies in the interval, and the references are printed."""
    source, log = tmp_path / "t.parquet", tmp_path / "log.parquet"
    pq.write_table(table(), source)
    code, text, _ = run(str(source), "--json", "--epsilons", "0.6", "--rows", "6000", "--out", str(log))
    told = orjson.loads(text)
    done = CliRunner().invoke(app, ["replay", "evaluate", "--table", str(log), "--json"])
    difference = orjson.loads(done.stdout)["difference"]["dr"]
    truth = told["value"]["router"] - found.value(found.exploring(0.6))

    assert code == 0
    assert set(told["value"]) == {"best_single", "random", "oracle", "router"}
    assert difference["low"] < truth < difference["high"]
    assert "cost_usd" not in pq.read_schema(log).names or told["cost"]["router"] is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.parquet"],
        ["t.parquet", "--epsilons", "x"],
        ["t.parquet", "--models", "a,z"],
        ["t.parquet", "--rows", "0"],
    ],
)
def test_what_cannot_be_used_exits_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """A message and no traceback."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(20), tmp_path / "t.parquet")
    code, _, err = run(*arguments)

    assert code == 2
    assert err.startswith("bench outcomes: ")


def test_the_command_tells_coverage_in_a_process_of_its_own(tmp_path: Path) -> None:
    """With nothing loaded beforehand: a few draws are reported, and too few to judge."""
    pq.write_table(table(200), tmp_path / "t.parquet")
    command = [sys.executable, "-m", "signalbox", "bench", "outcomes", str(tmp_path / "t.parquet")]
    command += ["--draws", "3", "--rows", "1500", "--epsilons", "0.8", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = orjson.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert [(each["worlds"], each["judged"]) for each in told["coverage"]] == [(3, False)]
    assert told["coverage"][0]["width"] > 0.0


def test_flat_is_one_row_a_draw(found: Outcomes) -> None:
    """Ids are unique though questions repeat."""
    drawing = drawn(found, found.exploring(0.5), found.router, 900, np.random.default_rng(1))
    made = flat(found, drawing)

    assert len(set(made["request_id"].to_pylist())) == 900
    assert {"target:a", "logged:d", "x_hard", "cost_usd"} <= set(made.column_names)


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"needs the outcome tables at {DATA}, which are not part of this project"
)
@pytest.mark.parametrize("name", ["elliesql", "llmrouter"])
def test_real_tables_read_and_hold_the_oracle_above_all(name: str) -> None:
    """The third-party tables convert, and no policy beats the oracle."""
    made = outcomes_of(pa.Table.from_pylist(list(TABLES[name](DATA))))
    value = {key: made.value(policy) for key, policy in made.references.items()}

    assert value["random"] < value["best_single"] <= value["oracle"]
    assert len(made.questions) > 900
