"""What a policy would change for logged traffic, printed: the ``--log`` of ``replay decide`` and others.

Whatever needs a library of analysis is imported when a command runs: every worker imports this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import orjson
import typer
from rich.console import Console

from agents.errors import ConfigError, InvalidRecord
from agents.policy import Policy
from agents.ports import Infer
from replay.exit_codes import code_of
from replay.policy_difference import difference
from replay.policy_difference import lines_of as differing
from replay.span import Span, SpannedView
from replay.view import LogView
from schemas.logdir import LogDirError

if TYPE_CHECKING:
    from replay.backfill import Filled
    from replay.comparison import Comparison
    from replay.logged import Logged

InferAt = Callable[[str], AbstractAsyncContextManager[Infer]]
"""Connect to the classifiers at an address, host:port."""

OK, NO, NOT_ENOUGH = 0, 1, 4
UNKNOWN_LIMIT = 0.01
"""The share of decisions that may need signals which the log does not hold."""

_UNUSABLE = (LogDirError, ConfigError, InvalidRecord, OSError)


class Source(Protocol):
    """What is compared: a log or archive, or a view of topics, and the stretch of time that is meant."""

    @property
    def where(self) -> str:
        """Return its place, or what it is called."""
        ...

    @property
    def span(self) -> Span | None:
        """Return the stretch of time; None for all."""
        ...

    @property
    def view(self) -> LogView | None:
        """Return the topics; None for a log or archive."""
        ...


@dataclass(frozen=True, slots=True)
class Classifiers:
    """How signals that the log lacks are computed: heuristics here, the others at *triton*, if given."""

    connect: InferAt
    triton: str = ""


def archived(where: str) -> bool:
    """Tell whether an archive lies at *where*."""
    from replay.logged import is_archive  # noqa: PLC0415 - heavy

    return is_archive(where)


def decide_under(
    source: Source, policy: Policy, *, as_json: bool, backfill: Classifiers | None = None
) -> int:
    """Print what *policy* changes for the decisions logged in *source* and return the exit code.

    With *backfill* the signals that it needs and the log lacks are computed first.
    """
    from replay.comparison_report import lines_of, report  # noqa: PLC0415 - heavy
    from replay.logged import KeptLog, logged_at  # noqa: PLC0415 - heavy

    try:
        if source.view is None:
            logged: Logged = logged_at(source.where, source.span)
        else:
            view = source.view if source.span is None else SpannedView(source.view, source.span)
            logged = KeptLog(view)
        with _lacking_filled(logged, policy, backfill) as (whole, filled):
            found = _over(whole, policy, None)
    except _UNUSABLE as error:
        typer.echo(f"replay decide: {error}", err=True)
        return code_of(error, source.where)
    answer = report(found, policy)
    lines = lines_of(answer)
    if filled is not None:
        answer["backfill"] = filled.as_json()
        lines.append("backfill: " + ", ".join(f"{n} {name}" for name, n in answer["backfill"].items() if n))
    typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines))
    return enough(found, source.where)


@contextmanager
def _lacking_filled(
    logged: Logged, policy: Policy, classifiers: Classifiers | None
) -> Iterator[tuple[Logged, Filled | None]]:
    """Give *logged* with what it lacks, and what came of that; as it is without *classifiers*."""
    from replay.adoption import no_classifier  # noqa: PLC0415 - heavy
    from replay.backfill import Backfilled  # noqa: PLC0415 - heavy

    if classifiers is None:
        yield logged, None
        return
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            infer: Infer = no_classifier
            if classifiers.triton:
                infer = runner.run(stack.enter_async_context(classifiers.connect(classifiers.triton)))
            whole = Backfilled(logged, policy, infer, runner)
            yield whole, whole.filled
        finally:
            runner.run(stack.aclose())


def diff_over(log: str, one: Policy, other: Policy, form: str) -> int:
    """Print what changes from *one* to *other* over *log* as text, json or markdown; return the exit code."""
    from replay.comparison_report import lines_of, markdown_of, report  # noqa: PLC0415 - heavy

    try:
        found = compared(log, other, one)
    except _UNUSABLE as error:
        typer.echo(f"policy diff: {error}", err=True)
        return code_of(error, log)
    answer = report(found, other, one)
    if form == "json":
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    elif form == "markdown":
        typer.echo(markdown_of(answer, differing(difference(one, other))), nl=False)
    else:
        typer.echo("\n".join(lines_of(answer)))
    if answer["safety_flips"]:
        typer.echo("policy diff: a decision marked as safety flips", err=True)
        return NO
    return enough(found, log)


def compared(log: str, new: Policy, old: Policy | None) -> Comparison:
    """Return what changes over the decisions logged at *log*; raises what an unusable log raises."""
    from replay.logged import logged_at  # noqa: PLC0415 - heavy

    return _over(logged_at(log), new, old)


def _over(logged: Logged, new: Policy, old: Policy | None) -> Comparison:
    from replay.comparison import compare  # noqa: PLC0415 - heavy

    with Console(stderr=True, highlight=False).status("deciding") as status:
        return compare(logged, new, old, lambda count: status.update(f"deciding: {count}"))


def enough(found: Comparison, log: str) -> int:
    """Say on stderr if *found* is too little to go by, and return the exit code."""
    if not found.decisions:
        typer.echo(f"{log}: the log holds no decision, so there is nothing to compare", err=True)
        return NOT_ENOUGH
    if found.unknown_share > UNKNOWN_LIMIT:
        names = ", ".join(sorted(found.lacking)[:5])
        typer.echo(
            f"{log}: {found.unknown_share:.2%} of decisions need signals that the log does not hold, more "
            f"than {UNKNOWN_LIMIT:.0%}: {names}; what is printed takes them as unknown",
            err=True,
        )
        return NOT_ENOUGH
    return OK
