"""``replay report``: what a policy would change and be worth, as one HTML file and its numbers as JSON."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from agents.errors import RouterError
from replay.comparison_cli import UNKNOWN_LIMIT
from replay.exit_codes import code_of
from replay.policy_cli import Environment, read_policy
from schemas.logdir import LogDirError

OK, NO, USAGE, NOT_ENOUGH = 0, 1, 2, 4


def register(commands: typer.Typer, environment: Environment) -> None:
    """Add ``report`` to the replay *commands*; *environment* is what configurations may refer to."""

    @commands.command("report")
    def _report(  # noqa: PLR0913 - a command's options
        html: Annotated[Path, typer.Option("--html", help="The page; its numbers go beside it as .json.")],
        log: Annotated[
            str | None, typer.Option("--log", help="A directory that --keep-log wrote, or an archive.")
        ] = None,
        policy: Annotated[
            Path | None, typer.Option("--policy", help="With --log: the target policy.")
        ] = None,
        table: Annotated[
            Path | None, typer.Option("--table", help="Logged choices with rewards, Parquet.")
        ] = None,
        *,
        slices: Annotated[
            list[str] | None, typer.Option("--slice", help="Also judge by each value of this column.")
        ] = None,
        detect: Annotated[
            float, typer.Option(help="Smallest difference that matters, in reward units.")
        ] = 0.01,
        seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
        reproduce: Annotated[
            bool, typer.Option(help="Make every logged decision again, to see that the log can be relied on.")
        ] = True,
        as_json: Annotated[bool, typer.Option("--json", help="Print the numbers too.")] = False,
    ) -> None:
        """Write a report: the verdict in words, then everything that stands behind it.

        Give --log and --policy for what would change, --table for what it would be worth, or both. Exits 1 if
        a logged decision comes out otherwise, 2 for what cannot be used, 4 if rewards cannot tell, if the
        log lacks what a decision was made of, or if over 1 % of decisions need signals that it lacks.
        """
        from replay.evaluation import Method  # noqa: PLC0415 - heavy
        from replay.reporting.assembly import Wish, told, write  # noqa: PLC0415 - heavy

        if (log is None) != (policy is None) or (log is None and table is None) or not detect > 0.0:
            typer.echo(
                "replay report: give --log and --policy, or --table, or all three; --detect is positive",
                err=True,
            )
            raise typer.Exit(USAGE)
        try:
            target = None if policy is None else read_policy(policy, environment())
            method = Method(seed=seed, detect=detect)
            wish = Wish(log, target, table, method, _command(), slices or (), reproduce)
            with Console(stderr=True, highlight=False).status("reckoning"):
                found = told(wish)
                numbers = write(found, html)
        except (RouterError, LogDirError, OSError) as error:
            typer.echo(f"replay report: {error}", err=True)
            raise typer.Exit(code_of(error, log or "")) from None
        if as_json:
            typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        else:
            typer.echo(f"{found['verdict']['sentence']}\n{html} and {numbers}")
        raise typer.Exit(_code(found))


def _code(found: dict[str, Any]) -> int:
    reproduction = found["reproduction"]
    if reproduction is not None and reproduction["changed"]:
        return NO
    unproven = reproduction is not None and not _whole(reproduction)
    lacking = found["disagreement"] is not None and found["disagreement"]["unknown_share"] > UNKNOWN_LIMIT
    return NOT_ENOUGH if unproven or lacking or found["verdict"]["word"] == "not_enough_evidence" else OK


def _whole(reproduction: dict[str, Any]) -> bool:
    """Tell whether there were decisions and each was reproduced, as `replay.decide.Report.complete` does."""
    decisions: int = reproduction["decisions"]
    return 0 < decisions == reproduction["reproduced"] and not reproduction["unreadable"]


def _command() -> list[str]:
    """Return the command line as it can be typed again."""
    return ["signalbox", *(shlex.quote(word) for word in sys.argv[1:])]
