"""The commands `policy activate`, `rollback`, `shadow` and `status`, against the running log."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.errors import ConfigError
from agents.policy import Policy
from schemas.control import PolicyActivated, PolicyShadowed
from streams.activation import Order, activate, find_policy, rollback, shadow
from streams.cli import FOLDER, NO, OK, Broker, Dir, Json, Locate, connected, finish, read_policy, say
from streams.pause_cli import actor
from streams.runners import World
from streams.settings import Settings

Named = Annotated[str, typer.Argument(help="A policy file, or the beginning of a hash that the log holds.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the log and shown by `policy status`.")]
Signature = Annotated[str, typer.Option(help="A signature to keep with the change; nothing checks it.")]
Report = Annotated[
    Path | None, typer.Option(help="The replay report that this rests on; its digest is kept.")
]
_SHOWN = 10

Change = Callable[[World, Order], Awaitable[bool]]


def order_of(reason: str, signature: str, report: Path | None) -> Order:
    """Return the order of whoever runs this process; raises `ConfigError` if *report* cannot be read."""
    digest = ""
    if report is not None:
        try:
            digest = "sha256:" + hashlib.sha256(report.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"cannot read {report}: {error.strerror}") from None
    return Order(actor(), reason, signature, digest)


async def change(found: Settings, order: Order, carry_out: Change, *, as_json: bool) -> int:
    """Carry out one change and print what holds now."""
    async with connected(found) as world:
        changed = await carry_out(world, order)
        say({"changed": changed, **standing(world, as_json=as_json)}, as_json=as_json)
        return OK


async def status(found: Settings, *, as_json: bool) -> int:
    """Print what is active and in shadow; exit code 1 if no policy is active."""
    async with connected(found) as world:
        told = standing(world, as_json=as_json)
        if as_json:
            life = world.policies.life
            told["history"] = [_record(record) for record in life.history[-_SHOWN:]]
            told["known"] = sorted(policy.hash for policy in world.book)
        say(told, as_json=as_json)
        return OK if world.policies.active is not None else NO


def standing(world: World, *, as_json: bool) -> dict[str, Any]:
    """Return what is active, what a rollback returns to, and what runs in shadow."""
    life = world.policies.life
    told = _record if as_json else _line
    return {
        "active": told(life.standing) if life.standing is not None else None,
        "before": life.before,
        "shadow": told(life.shadow) if life.shadow is not None else None,
    }


def policy_named(world: World, name: str) -> Policy:
    """Return the policy in the file *name*, else the one of that hash; raises `ConfigError`."""
    path = Path(name)
    return read_policy(path) if path.exists() else find_policy(world, name)


def _record(record: PolicyActivated | PolicyShadowed) -> dict[str, Any]:
    return asdict(record)


def _line(record: PolicyActivated | PolicyShadowed) -> str:
    at = record.activated_at if isinstance(record, PolicyActivated) else record.shadowed_at
    how = record.how.replace("_", " ") if isinstance(record, PolicyActivated) else "in shadow"
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
    why = f" ({record.reason})" if record.reason else ""
    signed = "; signature kept, not checked" if record.signature else ""
    grounds = f"; report {record.replay_report}" if record.replay_report else ""
    return f"{record.policy_hash} {how} by {record.actor} at {when}{why}{signed}{grounds}"


def register(policy: typer.Typer, locate: Locate) -> None:
    """Mount the commands under `policy`."""
    _register_activate(policy, locate)
    _register_rollback(policy, locate)
    _register_shadow(policy, locate)
    _register_status(policy, locate)


def _register_activate(app: typer.Typer, locate: Locate) -> None:
    @app.command(name="activate")
    def command(  # noqa: PLR0913 - one parameter for each option that the user has
        policy: Named,
        reason: Reason = "",
        signature: Signature = "",
        report: Report = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Stamp requests with this policy from now on; those already stamped keep their own."""

        async def carry_out(world: World, order: Order) -> bool:
            return await activate(world, policy_named(world, policy), order)

        async def work() -> int:
            order = order_of(reason, signature, report)
            return await change(locate(broker, folder), order, carry_out, as_json=json)

        finish(work())


def _register_rollback(app: typer.Typer, locate: Locate) -> None:
    @app.command(name="rollback")
    def command(  # noqa: PLR0913 - as above
        undo: Annotated[
            str, typer.Option("--undo", help="Only if this policy (hash) is active: safe to repeat.")
        ] = "",
        reason: Reason = "",
        signature: Signature = "",
        report: Report = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Activate again what was active before; each repetition goes one further back."""

        async def carry_out(world: World, order: Order) -> bool:
            return await rollback(world, order, find_policy(world, undo).hash if undo else "")

        async def work() -> int:
            order = order_of(reason, signature, report)
            return await change(locate(broker, folder), order, carry_out, as_json=json)

        finish(work())


def _register_shadow(app: typer.Typer, locate: Locate) -> None:
    @app.command(name="shadow")
    def command(  # noqa: PLR0913 - as above
        policy: Annotated[
            str | None, typer.Argument(help="A policy file, or the beginning of a hash.")
        ] = None,
        off: Annotated[bool, typer.Option("--off", help="No policy runs in shadow any more.")] = False,
        reason: Reason = "",
        signature: Signature = "",
        report: Report = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Let a policy decide beside the active one, into `decisions.shadow`; nothing acts on it.

        It sees the signals that the stamped policy demands and defines alike; its others are unknown.
        """

        async def carry_out(world: World, order: Order) -> bool:
            if not off:
                return await shadow(world, policy_named(world, policy or ""), order)
            running = world.policies.life.shadow
            meant = policy_named(world, policy).hash if policy is not None else None
            if meant is not None and (running is None or running.policy_hash != meant):
                return False
            return await shadow(world, None, order)

        async def work() -> int:
            if policy is None and not off:
                raise ConfigError("name a policy (FILE or HASH), or end the shadow with --off")
            order = order_of(reason, signature, report)
            return await change(locate(broker, folder), order, carry_out, as_json=json)

        finish(work())


def _register_status(app: typer.Typer, locate: Locate) -> None:
    @app.command(name="status")
    def command(broker: Broker = None, folder: Dir = FOLDER, json: Json = False) -> None:
        """Tell which policy is active, since when and by whom, and what a rollback would return to."""

        async def work() -> int:
            return await status(locate(broker, folder), as_json=json)

        finish(work())
