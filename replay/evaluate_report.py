"""Evaluate a table and print what came of it; imported by its command alone, since it takes a second."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.table import Table as Drawn

import replay.estimators
from agents.errors import InvalidRecord
from replay.estimators import estimator
from replay.evaluation import Evaluation, Method, evaluate
from replay.intervals import METHODS, Interval
from replay.reward_model import Kind
from replay.table import read_table

OK, USAGE, NOT_ENOUGH = 0, 2, 4
__all__ = ["KINDS", "METHODS", "Method", "evaluate_table"]

KINDS: dict[str, Kind] = {"ridge": "ridge", "boosting": "boosting"}


def evaluate_table(path: Path, method: Method, *, as_json: bool) -> int:
    """Evaluate the table at *path*, print the outcome and return the exit code."""
    estimator.load(replay.estimators)
    try:
        table = read_table(path)
        found = evaluate(table.log, method, model=table.model, observation_known=table.observation_known)
    except (InvalidRecord, ValueError) as error:
        typer.echo(f"replay evaluate: {error}", err=True)
        return USAGE
    if as_json:
        document = {**found.as_json(), "duplicates": table.duplicates}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        _draw(found, table.duplicates)
    return NOT_ENOUGH if found.verdict.word == "not_enough_evidence" else OK


def _draw(found: Evaluation, duplicates: int) -> None:
    console = Console(highlight=False)
    seen = found.diagnostics
    unsupported = "unknown" if seen.unsupported_share is None else f"{seen.unsupported_share:.2%}"
    console.print(
        f"{seen.n:,} rows in {seen.clusters:,} clusters ({duplicates} later copies left out); "
        f"effective sample size {seen.ess:,.0f}, carried by {seen.carrying:,.0f} rows; "
        f"largest weight {seen.max_weight:.1f}, mean weight {seen.mean_weight:.3f}; "
        f"changed {seen.changed_share:.1%}, unsupported {unsupported}, "
        f"rewards missing {seen.missing_share:.1%}"
    )
    drawn = Drawn(title=found.estimand)
    for heading in ("estimator", "value", "95 % interval", "minus logging policy", "95 % interval"):
        drawn.add_column(heading)
    for name, value in found.values.items():
        difference = found.differences[name]
        drawn.add_row(name, f"{value.value:.4g}", _ends(value), f"{difference.value:+.4g}", _ends(difference))
    console.print(drawn)
    console.print(found.sentence)


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.4g}, {interval.high:.4g}]"
