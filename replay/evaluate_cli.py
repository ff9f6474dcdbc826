"""``replay evaluate``: the value of a target policy from a flat table of logged choices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

OK, NO, USAGE, NOT_ENOUGH = 0, 1, 2, 4


def register(commands: typer.Typer) -> None:
    """Add ``evaluate`` to the replay *commands*."""
    commands.command("evaluate")(_evaluate)


def _evaluate(  # noqa: PLR0913 - a command's options
    table: Annotated[Path, typer.Option("--table", help="A Parquet file; docs/evaluation.md lists columns.")],
    *,
    model: Annotated[str, typer.Option(help="Reward model: ridge or boosting.")] = "ridge",
    interval: Annotated[str, typer.Option(help=f"One of: {', '.join(METHODS)}.")] = "clustered_t",
    detect: Annotated[float, typer.Option(help="Smallest difference that matters, in reward units.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate what the target policy is worth, and whether it is better than the logging policy.

    Exits 0 with a verdict (better or worse), 4 if the log cannot tell, 2 if the table cannot be used.
    """
    raise typer.Exit(
        evaluate_table(
            table, Method(interval=interval, model=_kind(model), detect=detect, seed=seed), as_json
        )
    )


def _kind(name: str) -> Kind:
    kinds: dict[str, Kind] = {"ridge": "ridge", "boosting": "boosting"}
    if name not in kinds:
        raise typer.BadParameter(f"{name!r} is not a reward model; use ridge or boosting")
    return kinds[name]


def evaluate_table(path: Path, method: Method, as_json: bool) -> int:  # noqa: FBT001 - the command's own flag
    """Evaluate the table at *path*, print the outcome and return the exit code."""
    if method.interval not in METHODS or not method.detect > 0.0:
        typer.echo(
            f"replay evaluate: --interval is one of {', '.join(METHODS)}; --detect is positive", err=True
        )
        return USAGE
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
