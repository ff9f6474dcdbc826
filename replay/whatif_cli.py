"""``replay whatif``: what a policy would have done with the request log of another product, no broker."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console

from agents.errors import ConfigError, RouterError, Unavailable
from agents.policy import Policy
from agents.ports import Infer
from replay.policy_cli import Environment, read_policy

if TYPE_CHECKING:
    from replay.imported import ImportedLog

OK, USAGE, DOWN, NOT_ENOUGH = 0, 2, 3, 4
HANGING_LIMIT = 0.01
"""The share of calls whose decision may hang on signals that are unknown."""

InferAt = Callable[[str], AbstractAsyncContextManager[Infer]]
"""Connect to the classifiers at an address, host:port."""


def register(commands: typer.Typer, environment: Environment, infer_at: InferAt) -> None:
    """Add ``whatif`` to the replay *commands*.

    *environment* is what configurations may refer to, *infer_at* how classifiers are reached.
    """

    @commands.command("whatif")
    def _whatif(
        log: Annotated[
            list[Path], typer.Argument(help="Request logs, JSON lines (may be gzipped).", show_default=False)
        ],
        policy: Annotated[Path, typer.Option("--policy", help="The configuration to try.")],
        *,
        form: Annotated[
            str, typer.Option("--format", help="litellm, openai, or auto: line by line.")
        ] = "auto",
        triton: Annotated[
            str, typer.Option("--triton", help="Ask the classifiers at HOST:PORT (gRPC) too.")
        ] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Decide the calls of a LiteLLM or OpenAI request log under a policy, without a broker.

        Prints models then and now, cost against what was paid, safety findings by line number, and what the
        log cannot tell. Exits 2 if nothing can be read, 3 if Triton does not answer, 4 if over
        1 % of decisions hang on unknown signals.
        """
        from replay.imported import ImportedLog  # noqa: PLC0415 - a megabyte of formats and signals

        try:
            chosen = read_policy(policy, environment())
            opened = ImportedLog(log, form)
            raise typer.Exit(_adopt(opened, chosen, infer_at, triton=triton, as_json=as_json))
        except (RouterError, OSError, EOFError, zlib.error) as error:
            typer.echo(f"replay whatif: {error}", err=True)
            raise typer.Exit(DOWN if isinstance(error, Unavailable) else USAGE) from None


def _adopt(log: ImportedLog, policy: Policy, infer_at: InferAt, *, triton: str, as_json: bool) -> int:
    from replay.adoption import Adopter, Adoption, no_classifier  # noqa: PLC0415 - as above
    from replay.adoption_report import lines_of, report  # noqa: PLC0415 - as above

    async def adopt(progress: Callable[[int], None]) -> Adoption:
        async with AsyncExitStack() as stack:
            infer = await stack.enter_async_context(infer_at(triton)) if triton else no_classifier
            return await Adopter(policy, infer).adopt(log, progress)

    with Console(stderr=True, highlight=False).status("deciding") as status:
        found = asyncio.run(adopt(lambda count: status.update(f"deciding: {count}")))
    answer = report(found, log, policy)
    typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines_of(answer)))
    if not found.calls:
        raise ConfigError(f"none of {log.reading.lines} lines is a chat completion that can be decided")
    share = answer["unknown"]["hanging_share"]
    if share > HANGING_LIMIT:
        typer.echo(
            f"replay whatif: {share:.1%} of decisions hang on signals that are unknown, more than "
            f"{HANGING_LIMIT:.0%}: {', '.join(list(answer['unknown']['hang_on'])[:5])}",
            err=True,
        )
        return NOT_ENOUGH
    return OK
