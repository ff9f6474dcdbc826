"""The command ``bench policy``: what deciding costs on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from agents.errors import ConfigError
from replay.policy_cli import read_policy
from replay.policy_eval import Judge
from replay.policy_eval_cli import observed_in
from replay.vectors import VectorError

if TYPE_CHECKING:
    from replay.policy_bench import Case

OK, USAGE = 0, 2
_ROWS = 1_000_000
_HELP = """Measure one decision with the winner's trace, and a batch of decisions from nested signals.

CPU time, the quickest of several runs; exits 2 for what cannot be read.
"""

Environment = Callable[[], Mapping[str, str]]
Config = Annotated[Path | None, typer.Option(help="A configuration; default: the shipped case.")]
Signals = Annotated[Path | None, typer.Option(help="Signal vectors as `policy eval` takes them.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows of the columnar batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(group: typer.Typer, environment: Environment) -> None:
    """Add the command to the group ``bench``; configurations may refer to *environment*."""

    @group.command("policy", help=_HELP)
    def command(
        *, config: Config = None, signals: Signals = None, rows: Rows = _ROWS, as_json: Json = False
    ) -> None:
        # Arrow takes 30 MB and 0.1 s to import, which only this command needs.
        from replay.policy_bench import measured, shipped_case  # noqa: PLC0415

        try:
            case = shipped_case()
            if config is not None or signals is not None:
                case = _case(config, signals, environment())
        except (ConfigError, VectorError) as error:
            typer.echo(f"bench policy: {error}", err=True)
            raise typer.Exit(USAGE) from None
        _show(measured(case, rows) | {"load_average": round(os.getloadavg()[0], 2)}, as_json=as_json)


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    typer.echo(f"{found['case']}, load average {found['load_average']}")
    typer.echo(
        f"one decision: {found['scalar_us']:.1f} us, without trace {found['scalar_without_trace_us']:.1f} us"
    )
    typer.echo(
        f"{found['rows']} rows: {found['columnar_per_s']:,.0f} decisions/s, "
        f"{found['columnar_dictionary_per_s']:,.0f} with dictionary-encoded text"
    )


def _case(config: Path | None, signals: Path | None, environment: Mapping[str, str]) -> Case:
    from replay.policy_bench import Case  # noqa: PLC0415 - as above

    if config is None or signals is None:
        raise ConfigError("give --config and --signals, or neither")
    judge = Judge(read_policy(config, environment))
    vectors = observed_in(signals)
    if not vectors:
        raise VectorError(f"{signals}: no signal vector to decide over")
    return Case(judge.evaluator.ruleset, vectors, str(config))
