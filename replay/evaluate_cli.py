"""``replay evaluate``: the value of a target policy from a flat table of logged choices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

USAGE = 2


def register(commands: typer.Typer) -> None:
    """Add ``evaluate`` to the replay *commands*."""
    commands.command("evaluate")(_evaluate)


def _evaluate(  # noqa: PLR0913 - a command's options
    table: Annotated[Path, typer.Option("--table", help="A Parquet file; docs/evaluation.md lists columns.")],
    *,
    model: Annotated[str, typer.Option(help="Reward model: ridge or boosting.")] = "ridge",
    interval: Annotated[
        str, typer.Option(help="clustered_t, bootstrap, bootstrap_t or confidence_sequence.")
    ] = "clustered_t",
    detect: Annotated[float, typer.Option(help="Smallest difference that matters, in reward units.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate what the target policy is worth, and whether it is better than the logging policy.

    Exits 0 with a verdict (better or worse), 4 if the log cannot tell, 2 if the table cannot be used.
    """
    # The estimators' libraries take a second and 150 MB to import, which a worker must not pay.
    from replay.evaluate_report import KINDS, METHODS, Method, evaluate_table  # noqa: PLC0415

    if model not in KINDS or interval not in METHODS or not detect > 0.0:
        typer.echo(
            f"replay evaluate: --model is one of {', '.join(KINDS)}; --interval one of {', '.join(METHODS)}; "
            "--detect is positive",
            err=True,
        )
        raise typer.Exit(USAGE)
    method = Method(interval=interval, model=KINDS[model], detect=detect, seed=seed)
    raise typer.Exit(evaluate_table(table, method, as_json=as_json))
