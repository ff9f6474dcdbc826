"""The commands `dlq list | show | redrive | purge`: what became of records that nobody could process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from agents.errors import ConfigError
from schemas.dead_letter import DeadLetter
from streams.cli import (
    FOLDER,
    NO,
    OK,
    Broker,
    Dir,
    FindBroker,
    Json,
    connected,
    finish,
    located,
    progress_bar,
)
from streams.dlq import OPEN, STATES, Entry, Filter, Orders, Outcome, full, last, letters, purge, redrive
from streams.pause_cli import actor
from streams.settings import Settings

Ids = Annotated[list[str] | None, typer.Option("--id", help="A letter's id, as `list` prints it.")]
RequestId = Annotated[str | None, typer.Option("--request", help="32 hex digits.")]
Stage = Annotated[str | None, typer.Option(help="The stage that gave up: decision, provider.north, ...")]
TopicName = Annotated[str | None, typer.Option("--topic", help="The original's topic: requests, ...")]
ErrorClass = Annotated[str | None, typer.Option("--error", help="The error's class: UndecodableError, ...")]
Tenant = Annotated[str | None, typer.Option(help="Whose, where the original tells.")]
Run = Annotated[str | None, typer.Option(help="Of which run, where the original tells.")]
Since = Annotated[str | None, typer.Option(help="Died at or after: 2026-11-25T10:00, or 90m, 2h, 3d ago.")]
Until = Annotated[str | None, typer.Option(help="Died before; as --since.")]
All = Annotated[bool, typer.Option("--all", help="Every letter; needed where no filter is given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
Force = Annotated[bool, typer.Option("--force", help="Also what was handled already.")]
_AGO = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ID_HEX = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """The filters of a command as they were typed."""

    ids: Sequence[str] = ()
    request: str | None = None
    stage: str | None = None
    topic: str | None = None
    error: str | None = None
    tenant: str | None = None
    run: str | None = None
    since: str | None = None
    until: str | None = None
    everything: bool = False

    def filter(self, now: int, state: str | None, *, bounded: bool = False) -> Filter:
        """Return the filter at *now* (ms); raises `ConfigError`, also if *bounded* and nothing is named."""
        whose = (self.request, self.tenant, self.run, self.since, self.until)
        named = any((*self.ids, self.stage, self.topic, self.error, *whose))
        if bounded and not (named or self.everything):
            raise ConfigError(
                "name what is meant: --id, --stage, --topic, ..., or --all for all that is open"
            )
        if state is not None and state not in STATES:
            raise ConfigError(f"--state is one of {', '.join(STATES)}, not {state!r}")
        return Filter(
            frozenset(self.ids),
            _request_id(self.request),
            self.stage,
            self.topic,
            self.error,
            self.tenant,
            self.run,
            _moment(self.since, now),
            _moment(self.until, now),
            state,
        )


def _request_id(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(text) != _ID_HEX or not found:
        raise ConfigError(f"--request is {_ID_HEX} hex digits, as `list` prints them")
    return found


def _moment(text: str | None, now: int) -> int | None:
    """Return ms since the epoch for an ISO date (UTC unless it says otherwise) or how long ago."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time: write 2026-11-25T10:00, or 90m, 2h, 3d ago") from None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def shown(entry: Entry) -> dict[str, Any]:
    """Return *entry* as JSON tells it; nothing of it quotes the record."""
    letter = entry.letter
    return {
        "id": entry.id,
        "state": entry.state,
        "stage": letter.stage,
        "error": letter.error_class,
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "died_at": letter.died_at,
        "attempts": letter.attempts,
        "request_id": letter.request_id.hex() if letter.request_id is not None else None,
        "tenant": entry.tenant or None,
        "run": entry.run or None,
        "policy_hash": letter.policy_hash,
        "bytes": entry.size,
    }


async def list_letters(found: Settings, asked: Asked, state: str | None, *, as_json: bool) -> int:
    """Print the letters that are meant."""
    async with connected(found) as world:
        wanted = asked.filter(world.now(), state)
        chosen = [entry for entry in await letters(world) if wanted.takes(entry)]
    if as_json:
        typer.echo(orjson.dumps({"count": len(chosen), "letters": [shown(entry) for entry in chosen]}))
        return OK
    for entry in chosen:
        letter = entry.letter
        place = f"{letter.topic}/{letter.partition}/{letter.offset}"
        when, state_ = _iso(letter.died_at), entry.state
        typer.echo(
            f"{entry.id}  {state_}  {when}  {letter.stage}  {letter.error_class}  {place}  {letter.reason}"
        )
    typer.echo(f"{len(chosen)} dead letters")
    return OK


async def show(found: Settings, name: str, value: Path | None, *, as_json: bool) -> int:
    """Print one letter, with its headers and what became of it; *value* is where its bytes go."""
    async with connected(found) as world:
        entry = next((e for e in await letters(world) if e.id == name), None)
        if entry is None:
            typer.echo(f"signalbox: no dead letter {name!r}; `signalbox dlq list` prints their ids", err=True)
            return NO
        letter = await full(world, entry)
    report = {**shown(entry), **_inside(letter), "closed": [_closed(c) for c in entry.closed]}
    if value is not None:
        try:
            await asyncio.to_thread(value.write_bytes, letter.value or b"")
        except OSError as error:
            raise ConfigError(f"cannot write {value}: {error.strerror}") from None
        report["value_file"] = str(value)
    if as_json:
        typer.echo(orjson.dumps(report))
    else:
        typer.echo("\n".join(f"{key}: {what}" for key, what in report.items()))
    return OK


def _inside(letter: DeadLetter) -> dict[str, Any]:
    headers = {h.key: h.value.decode("utf-8", "backslashreplace") for h in letter.headers}
    return {"key": letter.key.hex() if letter.key is not None else None, "headers": headers}


def _closed(closed: Any) -> dict[str, Any]:
    at = {"verb": closed.verb, "actor": closed.actor, "at": closed.closed_at}
    return at if closed.to_offset < 0 else {**at, "offset": closed.to_offset}


async def handle(found: Settings, asked: Asked, orders: Orders, verb: str, *, as_json: bool) -> int:
    """Redrive or purge what is meant; exit code 1 if something failed, or nothing of that name is there."""
    do: Callable[..., Any] = {"redrive": redrive, "purge": purge}[verb]
    async with connected(found) as world:
        named = bool(asked.ids) or asked.request is not None or orders.force
        wanted = asked.filter(world.now(), None if named else OPEN, bounded=True)
        every = await letters(world)
        chosen = [entry for entry in every if wanted.takes(entry)]
        outcome = await _with_bar(verb, len(chosen), do(world, every, chosen, orders))
    _report(outcome, verb, orders, as_json=as_json)
    return NO if outcome.failed or (asked.ids and not chosen) else OK


async def _with_bar(verb: str, total: int, work: Any) -> Outcome:
    with progress_bar(verb) as bar:
        task = bar.add_task(verb, total=total)
        return await last(work, lambda count: bar.update(task, completed=count))


def _report(outcome: Outcome, verb: str, orders: Orders, *, as_json: bool) -> None:
    done = f"{verb}n" if verb == "redrive" else "purged"
    report = {
        "dry_run": orders.dry_run,
        done: [shown(entry) for entry in outcome.done],
        "left": [{**shown(entry), "why": why} for entry, why in outcome.left],
        "failed": [{**shown(entry), "why": why} for entry, why in outcome.failed],
    }
    if as_json:
        typer.echo(orjson.dumps({"count": len(outcome.done), **report}))
        return
    would = "would be " if orders.dry_run else ""
    typer.echo(f"{len(outcome.done)} {would}{done}")
    for entry, why in [*outcome.left, *outcome.failed]:
        typer.echo(f"{entry.id} left alone: {why}")


def register(app: typer.Typer, find_broker: FindBroker) -> None:
    """Mount the commands; *find_broker* tells the address of the stack that runs in a folder."""
    dlq = typer.Typer(no_args_is_help=True, help="Records that nobody could process.")
    app.add_typer(dlq, name="dlq")
    _register_list(dlq, find_broker)
    _register_show(dlq, find_broker)
    _register_redrive(dlq, find_broker)
    _register_purge(dlq, find_broker)


def _register_list(dlq: typer.Typer, find_broker: FindBroker) -> None:
    @dlq.command(name="list")
    def list_command(  # noqa: PLR0913 - one parameter for each option that the user has
        ids: Ids = None,
        request: RequestId = None,
        stage: Stage = None,
        topic: TopicName = None,
        error: ErrorClass = None,
        tenant: Tenant = None,
        run: Run = None,
        since: Since = None,
        until: Until = None,
        state: Annotated[str | None, typer.Option(help="open, redriven or purged.")] = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """List dead letters, oldest first."""
        asked = Asked(ids or (), request, stage, topic, error, tenant, run, since, until)
        _finish(lambda: list_letters(located(find_broker, broker, folder), asked, state, as_json=json))


def _register_show(dlq: typer.Typer, find_broker: FindBroker) -> None:
    @dlq.command(name="show")
    def show_command(
        letter: Annotated[str, typer.Argument(help="The letter's id, as `list` prints it.")],
        value: Annotated[Path | None, typer.Option(help="Write the original's bytes here.")] = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Show one dead letter: where it comes from, why it died, what became of it."""
        _finish(lambda: show(located(find_broker, broker, folder), letter, value, as_json=json))


def _register_redrive(dlq: typer.Typer, find_broker: FindBroker) -> None:
    @dlq.command(name="redrive")
    def redrive_command(  # noqa: PLR0913 - as above
        ids: Ids = None,
        request: RequestId = None,
        stage: Stage = None,
        topic: TopicName = None,
        error: ErrorClass = None,
        tenant: Tenant = None,
        run: Run = None,
        since: Since = None,
        until: Until = None,
        rate: Annotated[
            float, typer.Option(min=0, help="At most so many a second; 0: as fast as it goes.")
        ] = 0,
        everything: All = False,
        dry_run: DryRun = False,
        force: Force = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Return originals to where they came from, unchanged, to be processed again."""
        asked = Asked(ids or (), request, stage, topic, error, tenant, run, since, until, everything)
        orders = Orders(actor(), rate, dry_run, force)
        _finish(lambda: handle(located(find_broker, broker, folder), asked, orders, "redrive", as_json=json))


def _register_purge(dlq: typer.Typer, find_broker: FindBroker) -> None:
    @dlq.command(name="purge")
    def purge_command(  # noqa: PLR0913 - as above
        ids: Ids = None,
        request: RequestId = None,
        stage: Stage = None,
        topic: TopicName = None,
        error: ErrorClass = None,
        tenant: Tenant = None,
        run: Run = None,
        since: Since = None,
        until: Until = None,
        expired: Annotated[bool, typer.Option("--expired", help="Only past the request's deadline.")] = False,
        everything: All = False,
        dry_run: DryRun = False,
        force: Force = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Give letters up: their requests end with an error result."""
        asked = Asked(
            ids or (), request, stage, topic, error, tenant, run, since, until, everything or expired
        )
        orders = replace(Orders(actor()), dry_run=dry_run, force=force, expired_only=expired)
        _finish(lambda: handle(located(find_broker, broker, folder), asked, orders, "purge", as_json=json))


def _finish(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run *work*, made inside the loop: what it raises at once is told like what it raises later."""

    async def begun() -> int:
        return await work()

    finish(begun())
