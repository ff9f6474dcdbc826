"""The commands over archives (``replay archive``, ``compact``, ``retain``), and how a worker opens its own.

Whatever needs a library of analysis is imported when a command runs: every worker imports this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
import yaml

from agents.errors import ConfigError, InvalidRecord, Unavailable
from replay.exit_codes import DOWN, code_of
from schemas.codec import committed
from schemas.logdir import LogDir, LogDirError

if TYPE_CHECKING:
    from replay.archive_care import Retention
    from replay.archive_files import Files
    from replay.archiver import Archiver

_UNUSABLE = (LogDirError, ConfigError, InvalidRecord, OSError)
Place = Annotated[
    str, typer.Option("--archive", help="The archive: a folder, or a URI such as s3://bucket/folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(commands: typer.Typer, clock: Callable[[], int]) -> None:
    """Add ``archive``, ``compact`` and ``retain`` to the group ``replay``; *clock* gives microseconds."""
    commands.command("archive")(_archive)

    @commands.command("compact")
    def compact_command(
        archive: Place,
        *,
        merged_s: Annotated[
            float,
            typer.Option("--merged-s", min=0, help="Seconds that files stay that were merged."),
        ] = 3600.0,
        as_json: Json = False,
    ) -> None:
        """Merge the small files of an archive that no worker writes now.

        Exits 2 for what is no archive, 3 if its place does not answer.
        """
        _compact(archive, clock() / 1e6 - merged_s if merged_s else math.inf, as_json=as_json)

    @commands.command("retain")
    def retain_command(
        archive: Place,
        keep: Annotated[Path, typer.Option("--keep", help="YAML: days by class or table.")],
        *,
        as_json: Json = False,
    ) -> None:
        """Erase what an archive holds longer than it is to be kept, whole files at a time; say what it was.

        Exits 2 for what is no archive, or a file of days that cannot be used, 3 if its place does not answer.
        """
        _retain(archive, keep, clock() / 1e6, as_json=as_json)


def open_archive(
    where: str, identity: tuple[str, str, bool], retention: Path | None = None, merged_s: float = 3600.0
) -> Archiver:
    """Return what writes the archive at *where*, begun if it is new.

    *identity* is cluster, prefix and whether with bodies, *retention* a file that says how long it keeps
    what, *merged_s* for how many seconds files stay that were merged. Raises `InvalidRecord` if it is of
    another log, `ConfigError` for that file, `OSError` if the place cannot be written, `Unavailable` if
    nobody answers.
    """
    from replay.archive_care import Keeping  # noqa: PLC0415 - heavy
    from replay.archive_commits import Identity  # noqa: PLC0415 - heavy
    from replay.archive_files import Files  # noqa: PLC0415 - heavy
    from replay.archiver import Archiver  # noqa: PLC0415 - heavy

    keeping = Keeping(None if retention is None else _days(retention), merged_s)
    try:
        return Archiver(Files(where), Identity(*identity), list(committed().values()), keeping)
    except OSError as error:
        if code_of(error, where) == DOWN:
            raise Unavailable(f"archive {where}: {error}") from None
        raise


def _days(path: Path) -> Retention:
    from replay.archive_care import Retention  # noqa: PLC0415 - heavy

    try:
        return Retention.of(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None


def _opened(archive: str) -> Files:
    """Return the files of the archive at that place; raises `InvalidRecord` if there is none."""
    from replay.archive_commits import Manifest  # noqa: PLC0415 - heavy
    from replay.archive_files import Files  # noqa: PLC0415 - heavy

    files = Files(archive)
    Manifest(files)
    return files


def _compact(archive: str, before: float, *, as_json: bool) -> None:
    from replay.archive_care import compact, sweep  # noqa: PLC0415 - heavy
    from replay.archive_commits import commits_in, settle  # noqa: PLC0415 - heavy

    try:
        files = _opened(archive)
        places = sorted({commit.place for commit in commits_in(files)})
        settle(files, places)
        merged = sum(compact(files, place, fan=2) for place in places)
        sweep(files, before)
        left = len(commits_in(files))
    except _UNUSABLE as error:
        typer.echo(f"replay compact: {error}", err=True)
        raise typer.Exit(code_of(error, archive)) from None
    typer.echo(
        orjson.dumps({"merged": merged, "commits": left})
        if as_json
        else f"merged {merged} commits; {left} are left"
    )


def _retain(archive: str, keep: Path, now: float, *, as_json: bool) -> None:
    from replay.archive_care import retain, summed  # noqa: PLC0415 - heavy

    try:
        erased = summed(retain(_opened(archive), _days(keep), now))
    except _UNUSABLE as error:
        typer.echo(f"replay retain: {error}", err=True)
        raise typer.Exit(code_of(error, archive)) from None
    if as_json:
        typer.echo(orjson.dumps({"dropped": erased}, option=orjson.OPT_INDENT_2))
        return
    for table, row in erased.items():
        typer.echo(f"dropped {row['rows']} {table} of {row['from']} to {row['to']}: {row['files']} files")
    if not erased:
        typer.echo("nothing is old enough to be dropped")


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

    Exits 2 for what is no log, or an archive of another cluster, 3 if the place does not answer.
    """
    from replay.archive import Source, archive  # noqa: PLC0415 - heavy
    from replay.archive_files import Files  # noqa: PLC0415 - heavy

    try:
        opened = LogDir(log)
        source = Source(opened, opened.manifest.cluster_id, opened.manifest.prefix)
        done = archive(source, Files(out), bodies=bodies)
    except _UNUSABLE as error:
        typer.echo(f"replay archive: {error}", err=True)
        raise typer.Exit(code_of(error, out)) from None
    if as_json:
        typer.echo(orjson.dumps(done.as_json(), option=orjson.OPT_INDENT_2))
        return
    rows = ", ".join(f"{count} {kind}" for kind, count in sorted(done.rows.items())) or "nothing new"
    typer.echo(rows + (f"; {done.unreadable} records are unreadable and left out" if done.unreadable else ""))
