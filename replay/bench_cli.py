"""The commands of ``signalbox bench`` that need no broker; other modules add theirs to the group."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

import replay.full_feedback_cli
from replay.bench_signals import measured
from replay.policy_cli import load_plugins

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> typer.Typer:
    """Add the group ``bench`` to *app* and return it."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("signals")(_signals)
    replay.full_feedback_cli.register(group)
    app.add_typer(
        group,
        name="bench",
        help="What a request costs in CPU time, and how sure evaluations are; no broker needed.",
    )
    return group


def _signals(*, as_json: Json = False) -> None:
    """Measure all heuristics and the decision of one request of 64 words, without and with languages."""
    load_plugins()
    found = measured()
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    typer.echo(f"heuristics and decision: {found['heuristics_ms']:.3f} ms of CPU a request")
    typer.echo(f"with three language rules: {found['with_language_ms']:.3f} ms")
