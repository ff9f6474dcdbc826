"""The commands over archives: ``replay archive``, and how a worker opens the one that it writes.

Whatever needs a library of analysis is imported when a command runs: every worker imports this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from agents.errors import ConfigError, InvalidRecord
from schemas.codec import committed
from schemas.logdir import LogDir, LogDirError

if TYPE_CHECKING:
    from replay.archiver import Archiver

USAGE = 2
_UNUSABLE = (LogDirError, ConfigError, InvalidRecord, OSError)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(commands: typer.Typer) -> None:
    """Add ``archive`` to the group ``replay``."""
    commands.command("archive")(_archive)


def open_archive(where: str, cluster_id: str, prefix: str, *, bodies: bool) -> Archiver:
    """Return what writes the archive at *where*, begun if it is new.

    Raises `InvalidRecord` if it is of another log, `OSError` if the place cannot be written.
    """
    from replay.archive_commits import Identity  # noqa: PLC0415 - heavy
    from replay.archive_files import Files  # noqa: PLC0415 - heavy
    from replay.archiver import Archiver  # noqa: PLC0415 - heavy

    identity = Identity(cluster_id, prefix, bodies)
    return Archiver(Files(where), identity, list(committed().values()))


def _archive(
    log: Annotated[Path, typer.Option("--log", help="A directory that --keep-log wrote.")],
    out: Annotated[str, typer.Option("--out", help="A folder, or a URI such as s3://bucket/folder.")],
    *,
    bodies: Annotated[
        bool, typer.Option("--bodies", help="Keep bodies and answers, sealed as they are.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a kept log as Parquet by date and tenant; run again, it adds what is new.

    Exits 2 for what is no log, or an archive of another cluster.
    """
    from replay.archive import Source, archive  # noqa: PLC0415 - heavy
    from replay.archive_files import Files  # noqa: PLC0415 - heavy

    try:
        opened = LogDir(log)
        source = Source(opened, opened.manifest.cluster_id, opened.manifest.prefix)
        done = archive(source, Files(out), bodies=bodies)
    except _UNUSABLE as error:
        typer.echo(f"replay archive: {error}", err=True)
        raise typer.Exit(USAGE) from None
    if as_json:
        typer.echo(orjson.dumps(done.as_json(), option=orjson.OPT_INDENT_2))
        return
    rows = ", ".join(f"{count} {kind}" for kind, count in sorted(done.rows.items())) or "nothing new"
    typer.echo(rows + (f"; {done.unreadable} records are unreadable and left out" if done.unreadable else ""))
