"""The command `feedback`: a file of ratings into the log, where replay takes them for rewards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer

from agents.ratings import METRIC, SOURCE, Defaults, Line, lines_of
from streams.batch import read_content
from streams.cli import FOLDER, NO, OK, Broker, Dir, FindBroker, Json, connected, finish, located
from streams.feedback import Given, give
from streams.settings import Settings

_SHOWN = 20


async def give_file(found: Settings, file: Path, defaults: Defaults, *, look_up: bool, as_json: bool) -> int:
    """Write the ratings in *file*, print what became of them, and return the exit code."""
    lines = list(lines_of(await asyncio.to_thread(read_content, file), defaults))
    async with connected(found) as world:
        given = await give(world, lines, look_up=look_up)
    _report(given, len(lines), as_json=as_json)
    return NO if given.refused else OK


def _report(given: Given, lines: int, *, as_json: bool) -> None:
    if as_json:
        refused = [_told(line) for line in given.refused]
        typer.echo(orjson.dumps({"lines": lines, "written": given.written, "refused": refused}))
        return
    for line in given.refused[:_SHOWN]:
        typer.echo(f"line {line.number}: {line.code}: {line.message}", err=True)
    if len(given.refused) > _SHOWN:
        typer.echo(f"... and {len(given.refused) - _SHOWN:,} more", err=True)
    typer.echo(f"{given.written:,} of {lines:,} ratings written")


def _told(line: Line) -> dict[str, object]:
    return {"line": line.number, "code": line.code, "message": line.message}


def register(app: typer.Typer, find_broker: FindBroker) -> None:
    """Mount the command; *find_broker* tells the address of the stack that runs in a folder."""

    @app.command()
    def feedback(  # noqa: PLR0913 - one parameter for each option that the user has
        file: Annotated[Path, typer.Argument(help="Ratings, one JSON object a line; docs/feedback.md.")],
        run: Annotated[str | None, typer.Option(help="The run that a line's custom_id is of.")] = None,
        tenant: Annotated[str | None, typer.Option(help="Whose run that is.")] = None,
        metric: Annotated[str, typer.Option(help="What is rated, where a line does not say.")] = METRIC,
        source: Annotated[str, typer.Option(help="Who rates, where a line does not say.")] = SOURCE,
        no_lookup: Annotated[
            bool, typer.Option("--no-lookup", help="Do not look whether the requests are in the log.")
        ] = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Write ratings of answered requests into the log; exit 1 if a line was not taken."""

        async def work() -> int:
            settings = located(find_broker, broker, folder)
            defaults = Defaults(tenant or settings.tenant, run, metric, source)
            return await give_file(settings, file, defaults, look_up=not no_lookup, as_json=json)

        finish(work())
