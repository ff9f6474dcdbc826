"""``replay plan``: what a verdict on another policy would take, before anything is logged for it.

Whatever needs a library of analysis is imported when the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from agents.errors import ConfigError, InvalidRecord
from agents.policy import Policy
from replay.comparison_cli import compared, enough
from replay.exit_codes import USAGE, code_of
from replay.plan import Terms, Wanted
from replay.policy_cli import read_policy
from schemas.logdir import LogDirError

_LEAST_DESIGN = 1.0


def register(commands: typer.Typer) -> None:
    """Add ``plan`` to the replay *commands*."""
    commands.command("plan")(_plan)


def _plan(  # noqa: PLR0913 - a command's options
    policy: Annotated[Path, typer.Option("--policy", help="The configuration to be judged.")],
    detect: Annotated[float, typer.Option(help="Smallest difference that matters, in reward units.")],
    *,
    log: Annotated[str, typer.Option("--log", help="A kept log or an archive of today's traffic.")] = "",
    changed: Annotated[float, typer.Option(help="Share of traffic that changes, where there is no log.")] = 0,
    per_day: Annotated[float, typer.Option(help="Requests a day; by default the log's own pace.")] = 0,
    within_days: Annotated[float, typer.Option(help="How long it may take: picks epsilon.")] = 14,
    variance: Annotated[
        float, typer.Option(help="The reward's variance about its model; 0.19 suits yes or no.")
    ] = 0.19,
    observed: Annotated[float, typer.Option(help="Share of requests that get a reward.")] = 1.0,
    design: Annotated[float, typer.Option(help="By how much sessions widen: 1 + (size - 1) rho.")] = 1.0,
    pair_usd: Annotated[float, typer.Option(help="Price of one judged pair.")] = 0.01,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what it takes to judge a policy: epsilon, requests, days and dollars, or judged pairs.

    For a 95 % interval of the paired difference and a power of 80 %. Exits 0 with a plan, 2 for what
    cannot be used, 4 if the log has no decision or lacks signals that over 1 % of decisions need.
    """
    wanted = Wanted(detect, variance, observed, design)
    good = detect > 0.0 and variance > 0.0 and 0.0 < observed <= 1.0 and design >= _LEAST_DESIGN
    if not (good and 0.0 <= changed <= 1.0 and per_day >= 0.0 and within_days > 0.0 and pair_usd >= 0.0):
        typer.echo(
            "replay plan: --detect, --variance and --within-days are positive, --observed is in (0, 1], "
            "--design at least 1, --changed in [0, 1], --per-day and --pair-usd not negative",
            err=True,
        )
        raise typer.Exit(USAGE)
    terms = Terms(wanted, per_day, within_days, pair_usd, changed)
    try:
        code = _planned(read_policy(policy), log, terms, as_json=as_json)
    except (LogDirError, ConfigError, InvalidRecord, OSError) as error:
        typer.echo(f"replay plan: {error}", err=True)
        raise typer.Exit(code_of(error, log)) from None
    raise typer.Exit(code)


def _planned(new: Policy, log: str, terms: Terms, *, as_json: bool) -> int:
    from replay.logged import logged_at  # noqa: PLC0415 - heavy
    from replay.plan_report import assumed, lines_of, planned  # noqa: PLC0415 - heavy

    code = 0
    if log:
        found = compared(log, new, None)
        code = enough(found, log)
        if not found.decisions:
            return code
        texts = logged_at(log).policies()
        by = next((name for name, _ in found.hashes.most_common() if name in texts), "")
        if not by:
            raise InvalidRecord(f"{log}: it holds the text of no policy that decided")
        answer = planned(found, Policy.loads(texts[by]), new, terms)
    else:
        answer = assumed(new, terms)
    typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines_of(answer)))
    return code
