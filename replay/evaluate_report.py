"""Evaluate a table or a log and print what came of it; imported by its command alone: it takes a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table as Drawn

import replay.estimators
from agents.errors import ConfigError, InvalidRecord
from agents.policy import Policy
from replay.choices import Choices, Units, Wanted, choices
from replay.estimators import estimator
from replay.evaluation import Evaluation, Method, evaluate
from replay.exit_codes import code_of
from replay.intervals import METHODS, Interval
from replay.logged import Logged, logged_at
from replay.measures import SHARED, Measured, Prices, measured, prices_of
from replay.rated_file import rated_file
from replay.reward_model import Kind
from replay.table import Table, read_table, table_of
from schemas.logdir import LogDirError

OK, USAGE, NOT_ENOUGH = 0, 2, 4
UNKNOWN_LIMIT = 0.01
"""The share of decisions that may need signals which the log does not hold."""

__all__ = ["KINDS", "METHODS", "Method", "Wanted", "evaluate_log", "evaluate_table", "unit_named"]

KINDS: dict[str, Kind] = {"ridge": "ridge", "boosting": "boosting"}
_MEASURES = {"cost": "cost_usd", "latency": "latency_ms"}


def unit_named(name: str) -> Units:
    """Return *name*, which the command has checked."""
    return cast("Units", name)


@dataclass(frozen=True)
class Report:
    """All that is said of a table: its value, its cost and latency where it has them, and its log."""

    found: Evaluation
    duplicates: int
    measures: dict[str, Measured | None]
    log: Choices | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        return NOT_ENOUGH if self.found.verdict.word == "not_enough_evidence" else OK

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        told: dict[str, Any] = {**self.found.as_json(), "duplicates": self.duplicates}
        for name, found in self.measures.items():
            told[name] = None if found is None else found.as_json()
        return told | {"log": None if self.log is None else self.log.as_json(), "notes": [SHARED]}


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that a table was made from, and the prices in it."""

    log: Choices
    prices: Prices


def reported(
    table: Table, method: Method, slices: Sequence[str] = (), origin: Origin | None = None
) -> Report:
    """Return the report of *table*, with a verdict for each value of the columns *slices*.

    Raises `InvalidRecord` for a column that is not there.
    """
    estimator.load(replay.estimators)
    found = evaluate(
        table.log,
        method,
        model=table.model,
        observation_known=table.observation_known,
        refusals=() if origin is None else _lacking(origin.log),
        slices={column: table.labels(column) for column in slices},
    )
    prices = None if origin is None else origin.prices
    measures = {name: measured(table, column, method, prices) for name, column in _MEASURES.items()}
    return Report(found, table.duplicates, measures, None if origin is None else origin.log)


def _lacking(log: Choices) -> Sequence[str]:
    share = log.counts.unknown_share
    if share <= UNKNOWN_LIMIT:
        return ()
    names = ", ".join(sorted(log.lacking)[:5])
    said = f"{share:.2%} of decisions need signals that the log does not hold, more than {UNKNOWN_LIMIT:.0%}"
    return (f"{said}: {names}",)


def evaluate_table(path: Path, method: Method, slices: Sequence[str], *, as_json: bool) -> int:
    """Evaluate the table at *path*, print the outcome and return the exit code."""
    try:
        report = reported(read_table(path), method, slices)
    except InvalidRecord as error:
        typer.echo(f"replay evaluate: {error}", err=True)
        return USAGE
    return _print(report, as_json=as_json)


def evaluate_log(  # noqa: PLR0913 - a command's options
    where: str,
    wanted: Wanted,
    method: Method,
    slices: Sequence[str],
    *,
    ratings: Path | None,
    save: Path | None,
    as_json: bool,
) -> int:
    """Evaluate *wanted* over the log or archive at *where*, print the outcome and return the exit code."""
    try:
        logged = logged_at(where)
        found = choices(logged, wanted, None if ratings is None else rated_file(ratings))
        if save is not None:
            pq.write_table(found.table, save)
        if not found.counts.decisions:
            typer.echo(f"replay evaluate: {where}: {_empty(found)}", err=True)
            return NOT_ENOUGH
        table = table_of(found.table, where)
        prices = prices_of([*_logging(logged, found), wanted.policy], table.log.actions)
        report = reported(table, method, slices, Origin(found, prices))
    except (InvalidRecord, LogDirError, ConfigError, OSError) as error:
        typer.echo(f"replay evaluate: {error}", err=True)
        return code_of(error, where)
    return _print(report, as_json=as_json)


def _empty(found: Choices) -> str:
    if found.counts.immature:
        return f"all {found.counts.immature:,} requests are younger than the horizon when the log ends"
    return "the log holds no decision, so there is nothing to evaluate"


def _logging(logged: Logged, found: Choices) -> list[Policy]:
    texts = logged.policies()
    return [Policy.loads(texts[name]) for name in found.logging_policies if name in texts]


def _print(report: Report, *, as_json: bool) -> int:
    if as_json:
        typer.echo(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
    else:
        _draw(report)
    return report.code


def _draw(report: Report) -> None:
    console = Console(highlight=False)
    if report.log is not None:
        _draw_log(console, report.log)
    _draw_evaluation(console, report.found, report.duplicates, report.found.sentence)
    for name, found in report.measures.items():
        if found is None:
            console.print(f"{name}: no row has it")
        else:
            console.print(f"\n[bold]{name}[/bold]: {found.sentence}")
            default = found.found.values["dr"]
            console.print(
                f"target {default.value:.4g} {_ends(default)}, "
                f"logging policy {found.found.logging_value.value:.4g}; "
                f"model: {found.model}; {found.found.diagnostics.missing_share:.1%} of rows have none"
            )
    console.print(SHARED)


def _draw_log(console: Console, log: Choices) -> None:
    seen = log.counts
    console.print(
        f"{seen.decisions:,} decisions ({seen.repeats:,} repeats, {seen.never_decided:,} given up left out); "
        f"{seen.unknown:,} need signals that the log lacks, {seen.shredded:,} are shredded, "
        f"{seen.unanswered:,} were not answered, {seen.fallbacks:,} by a fallback"
    )
    console.print(
        f"rewards: {log.metric or 'none'} from {', '.join(log.sources) or 'nobody'}: {seen.rated:,} rated, "
        f"{seen.missing:,} missing, {seen.late:,} late, {seen.immature:,} requests too young, "
        f"{seen.repeated_ratings:,} repeated, {seen.unmatched_ratings:,} of requests not in the log; "
        f"clustered by {log.clustered_by}"
    )


def _draw_evaluation(console: Console, found: Evaluation, duplicates: int, sentence: str) -> None:
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
    console.print(sentence)
    if found.slices:
        _draw_slices(console, found)


def _draw_slices(console: Console, found: Evaluation) -> None:
    drawn = Drawn(title="by slice: verdicts and intervals hold together (Holm; Bonferroni)")
    for heading in ("slice", "rows", "minus logging policy", "interval", "p, adjusted", "verdict"):
        drawn.add_column(heading)
    for each in found.slices:
        told = "; ".join(each.refusals) or each.verdict
        drawn.add_row(
            f"{each.column}={each.value}",
            f"{each.rows:,}",
            f"{each.difference.value:+.4g}",
            _ends(each.difference),
            f"{each.adjusted:.3g}",
            told,
        )
    console.print(drawn)


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.4g}, {interval.high:.4g}]"
