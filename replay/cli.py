"""The commands of replay, mounted by the front door: ``replay decide``, and ``explain`` over any log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer
from rich.console import Console

import replay.comparison_cli
import replay.evaluate_cli
import replay.plan_cli
from agents.errors import ConfigError, InvalidRecord, NondeterminismError, Unavailable
from agents.policy import Policy
from agents.ports import Infer
from replay.comparison_cli import Classifiers, InferAt
from replay.decide import Evidence, Report, decide_again
from replay.drawing import drawn
from replay.exit_codes import code_of
from replay.explain import as_json as explained
from replay.policy_cli import read_policy
from replay.span import Span, SpannedView
from replay.trail import UnknownRequestError, trail
from replay.view import LogView
from replay.what_if import UndecidedError, lines_of, what_if
from schemas.identity import parse_id
from schemas.logdir import LogDir, LogDirError

OK, NO, USAGE, DOWN, NOT_ENOUGH = 0, 1, 2, 3, 4
_EVERY = 500
_WIDTH = 160


OpenTopics = Callable[[str | None, Path], AbstractContextManager[LogView]]
"""Opens the topics of the broker at an address, else of the stack in a folder."""


def _no_topics(_broker: str | None, _folder: Path) -> AbstractContextManager[LogView]:
    raise ConfigError("give --log: no broker can be reached from here")


def _no_classifiers(_address: str) -> AbstractAsyncContextManager[Infer]:
    raise ConfigError("no classifier can be reached from here")


def register(
    app: typer.Typer, open_topics: OpenTopics = _no_topics, infer_at: InferAt = _no_classifiers
) -> typer.Typer:
    """Add the group ``replay`` to *app* and return it, so that others can add to it.

    *open_topics* and *infer_at* tell how topics and classifiers are reached.
    """
    commands = typer.Typer(no_args_is_help=True)
    _register_decide(commands, open_topics, infer_at)
    replay.evaluate_cli.register(commands)
    replay.plan_cli.register(commands)
    app.add_typer(commands, name="replay", help="What the log proves, and what would have been.")
    return commands


def _register_decide(commands: typer.Typer, open_topics: OpenTopics, infer_at: InferAt) -> None:
    @commands.command("decide")
    def decide(  # noqa: PLR0913 - one parameter for each option that the user has
        *,
        log: Annotated[
            str | None, typer.Option("--log", help="A directory that --keep-log wrote, or an archive.")
        ] = None,
        broker: Annotated[
            str | None, typer.Option("--broker", help="Without --log: read the topics at HOST:PORT.")
        ] = None,
        folder: Annotated[
            Path, typer.Option("--dir", help="Without either: the topics of the stack in this folder.")
        ] = Path(".signalbox"),
        since: Annotated[
            str | None, typer.Option("--since", help="Decisions from this time (ISO, or ms) on.")
        ] = None,
        until: Annotated[str | None, typer.Option("--until", help="Decisions before this time.")] = None,
        policy: Annotated[
            Path | None, typer.Option("--policy", help="Decide under this configuration instead.")
        ] = None,
        backfill: Annotated[
            bool, typer.Option("--backfill", help="With --policy: compute the signals that the log lacks.")
        ] = False,
        triton: Annotated[
            str, typer.Option("--triton", help="With --backfill: the classifiers at HOST:PORT (gRPC) too.")
        ] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Make every logged decision again and compare: all must come out as logged.

        Exits 0 if every decision was reproduced, 1 if one changed (the first difference is named),
        4 if the log holds no decision or lacks what some were made of. With --policy tells what that policy
        would change, and exits 0, or 4 if over 1 % of decisions need signals that the log does not hold.
        """
        try:
            _not_both(log, broker)
            if (backfill and policy is None) or (triton and not backfill):
                _refuse("--backfill goes with --policy, and --triton with --backfill")
            span = Span.of(since, until)
            new = None if policy is None else read_policy(policy)
            source = _Source(log, span) if log else _Source(broker or str(folder), span)
            with nullcontext() if log else open_topics(broker, folder) as view:
                source = source if log else replace(source, view=view)
                classifiers = Classifiers(infer_at, triton) if backfill else None
                code = _decided(source, new, classifiers, as_json=as_json)
        except (LogDirError, ConfigError, InvalidRecord, OSError) as error:
            typer.echo(f"replay decide: {error}", err=True)
            code = code_of(error, log or "")
        except Unavailable as error:
            typer.echo(f"replay decide: {error}", err=True)
            code = DOWN
        raise typer.Exit(code)


def _not_both(log: str | None, broker: str | None) -> None:
    if log and broker:
        _refuse("give --log or --broker, not both")


def _refuse(why: str) -> NoReturn:
    raise ConfigError(why)


@dataclass(frozen=True, slots=True)
class _Source:
    """What is decided: the log or archive at *where*, or a *view* of topics that are called so."""

    where: str
    span: Span | None
    view: LogView | None = None


def _decided(
    source: _Source, new: Policy | None, classifiers: Classifiers | None = None, *, as_json: bool
) -> int:
    if new is not None:
        return replay.comparison_cli.decide_under(source, new, as_json=as_json, backfill=classifiers)
    found = _evidence(source)
    err = Console(stderr=True, highlight=False)
    with err.status("making every decision again") as status:

        def progress(count: int) -> None:
            if count % _EVERY == 0:
                status.update(f"making every decision again: {count}")

        report = decide_again(found, progress=progress)
    typer.echo(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) if as_json else summary(report))
    return verdict(report, source.where)


def _evidence(source: _Source) -> Evidence:
    """Return what *source* has of its decisions; raises what an unusable log raises."""
    if source.view is None and replay.comparison_cli.archived(source.where):
        from replay.archived_cases import archived_evidence  # noqa: PLC0415 - heavy

        return archived_evidence(source.where, source.span)
    view: LogView = LogDir(Path(source.where)) if source.view is None else source.view
    return Evidence.of(view if source.span is None else SpannedView(view, source.span))


def summary(report: Report) -> str:
    """Return the outcome in one line."""
    text = f"reproduced {report.reproduced} of {report.decisions}"
    parts = (
        (report.changed, "changed"),
        (report.missing_inputs, "lack signals that the log does not hold"),
        (report.missing_policies, "lack their policy"),
        (report.unreadable, "are unreadable"),
    )
    spent = report.exploration
    explored = (
        f"; {spent.explored} of {spent.open} explored, {spent.extra_usd:+.6f} USD by expected tokens"
        if spent.open
        else ""
    )
    dropped = [
        f"\ndropped by age: {row['rows']} {table} of {row['from']} to {row['to']}"
        for table, row in report.dropped.items()
    ]
    return text + "".join([*(f"; {count} {what}" for count, what in parts if count), explored, *dropped])


def verdict(report: Report, where: str) -> int:
    """Say on stderr what is wrong with *report* of the log at *where*, and return the exit code."""
    try:
        report.check()
    except NondeterminismError as error:
        typer.echo(f"NondeterminismError: {error}", err=True)
        return NO
    if report.complete:
        return OK
    if not report.decisions:
        typer.echo(f"{where}: the log holds no decision, so there is nothing to prove", err=True)
    else:
        typer.echo(
            f"{where}: not all that was decided upon is in the log; first: {report.first_missing}", err=True
        )
    return NOT_ENOUGH


def explain_view(view: LogView, request_id: str, *, as_json: bool, under: Policy | None = None) -> int:
    """Print why *request_id* went where it went, by the records in *view*; return the exit code.

    With *under* prints what that policy would have done with the same signals, and what would flip it.
    """
    try:
        found = trail(view, parse_id(request_id.strip()))
        other = what_if(found, under) if under is not None else None
    except ValueError:
        typer.echo(f"explain: {request_id!r} is not a request id: 32 hex digits are needed", err=True)
        return USAGE
    except (UnknownRequestError, UndecidedError) as error:
        typer.echo(f"explain: {error}", err=True)
        return NO
    except LogDirError as error:
        typer.echo(f"explain: {error}", err=True)
        return USAGE
    if other is not None:
        typer.echo(orjson.dumps(other, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines_of(other)))
    elif as_json:
        typer.echo(orjson.dumps(explained(found), option=orjson.OPT_INDENT_2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH)  # a pipe has no width to be cut to
        console.print(drawn(found))
    return OK
