"""The commands `pause` and `resume`: what operators say, written to `control.events`."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from agents.errors import ConfigError
from schemas.control import Paused, Resumed
from streams.cli import FOLDER, OK, Broker, Dir, FindBroker, Json, connected, finish, located
from streams.pauses import ALL, PROVIDER, STAGE, TENANT, Target, tell
from streams.runners import World
from streams.settings import Settings
from streams.standing import roles_in

Provider = Annotated[str | None, typer.Option(help="The worker of this provider makes no new call.")]
Tenant = Annotated[str | None, typer.Option(help="No job of this tenant is called.")]
Stage = Annotated[str | None, typer.Option(help="This role consumes nothing: decision, signals.<role>, ...")]
All = Annotated[bool, typer.Option("--all", help="No role consumes anything.")]
Reason = Annotated[str, typer.Option(help="Why; shown by `status` and kept in the log.")]


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks for: a target, and why."""

    target: Target
    reason: str
    as_json: bool


def target_of(provider: str | None, tenant: str | None, stage: str | None, *, everything: bool) -> Target:
    """Return the one target that is named; raises `ConfigError` unless it is exactly one."""
    named = [
        Target(scope, name)
        for scope, name in ((PROVIDER, provider), (TENANT, tenant), (STAGE, stage))
        if name is not None
    ]
    if everything:
        named.append(Target(ALL))
    if len(named) != 1 or not (named[0].name or everything):
        raise ConfigError("name one thing: --provider P, --tenant T, --stage S or --all")
    return named[0]


async def check_exists(world: World, target: Target) -> None:
    """Raise `ConfigError` if *target* is nothing that runs here: a typing error would pause nothing.

    Of a tenant it cannot be known.
    """
    roles = roles_in(await world.log.topics())
    workers = [role.removeprefix("provider.") for role in roles if role.startswith("provider.")]
    known = {PROVIDER: workers, STAGE: roles}
    names = known.get(target.scope, [target.name])
    if target.name not in names:
        raise ConfigError(f"no {target.scope} {target.name!r} here; there are: {', '.join(names)}")


def actor() -> str:
    """Return who gives the order: user and host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


async def pause(found: Settings, order: Order) -> int:
    """Pause; what is paused already stays so under its first reason."""
    async with connected(found) as world:
        await check_exists(world, order.target)
        held = world.pauses.of(order.target)
        record = held or Paused(order.target.scope, order.target.name, actor(), order.reason, world.now())
        if held is None:
            await tell(world.outbox, record)
        report = {
            "paused": True,
            "changed": held is None,
            **shown(record),
            "consequence": _consequence(order.target),
        }
        _say(order, report, f"{'already paused' if held else 'paused'}: {described(record)}")
        return OK


async def resume(found: Settings, order: Order) -> int:
    """Resume; what is not paused stays so."""
    async with connected(found) as world:
        held = world.pauses.of(order.target)
        if held is not None:
            record = Resumed(order.target.scope, order.target.name, actor(), order.reason, world.now())
            await tell(world.outbox, record)
        left = [shown(p) for t, p in world.pauses.held.items() if t != order.target]
        report = {
            "paused": False,
            "changed": held is not None,
            "scope": order.target.scope,
            "name": order.target.name,
            "still_paused": left,
        }
        words = f"{'resumed' if held else 'was not paused'}: {order.target}"
        rest = [f"still paused: {described(p)}" for t, p in world.pauses.held.items() if t != order.target]
        _say(order, report, "\n".join([words, *rest]))
        return OK


def shown(record: Paused) -> dict[str, Any]:
    """Return *record* as JSON tells it."""
    return {
        "scope": record.scope,
        "name": record.name,
        "actor": record.actor,
        "reason": record.reason,
        "since": record.paused_at,
        "resume": f"signalbox resume {Target(record.scope, record.name).option}",
    }


def described(record: Paused) -> str:
    """Return *record* as one line for a person: what, by whom, why, since when, and how to end it."""
    since = datetime.fromtimestamp(record.paused_at / 1000, UTC).isoformat(timespec="seconds")
    target = Target(record.scope, record.name)
    why = f" ({record.reason})" if record.reason else ""
    return f"{target} by {record.actor} since {since}{why}; `signalbox resume {target.option}`"


def _consequence(target: Target) -> str:
    """Return what a pause does not stop, where that matters."""
    if target.scope == STAGE and target.name.startswith("signals."):
        return "requests are decided without its signals once their decide_by passes"
    if target.scope in {PROVIDER, TENANT}:
        return "calls under way finish; jobs past their deadline still expire"
    return "deadlines of requests go on meanwhile"


def _say(order: Order, report: dict[str, Any], words: str) -> None:
    if order.as_json:
        typer.echo(orjson.dumps(report))
        return
    typer.echo(words)
    if report.get("consequence"):
        typer.echo(f"note: {report['consequence']}")


def register(app: typer.Typer, find_broker: FindBroker) -> None:
    """Mount the commands; *find_broker* tells the address of the stack that runs in a folder."""
    orders = {
        "pause": (pause, "Stop something, also across restarts, until `resume`."),
        "resume": (resume, "Let go on what `pause` stopped."),
    }
    for name, (carry_out, text) in orders.items():
        _register(app, find_broker, (name, carry_out, text))


def _register(app: typer.Typer, find_broker: FindBroker, order: tuple[str, Any, str]) -> None:
    name, carry_out, text = order

    @app.command(name=name, help=text)
    def command(  # noqa: PLR0913 - one parameter for each option that the user has
        provider: Provider = None,
        tenant: Tenant = None,
        stage: Stage = None,
        everything: All = False,
        reason: Reason = "",
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        async def work() -> int:
            target = target_of(provider, tenant, stage, everything=everything)
            return int(await carry_out(located(find_broker, broker, folder), Order(target, reason, json)))

        finish(work())
