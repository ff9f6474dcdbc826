"""What operators have paused, as `control.events` tells it; every worker obeys it, also after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from agents.topology import Emit
from schemas.codec import Codec, UndecodableError
from schemas.control import Paused, Resumed
from schemas.envelope import Envelope
from schemas.topics import CONTROL_EVENTS
from streams.outbox import Outbox

ALL, STAGE, PROVIDER, TENANT = SCOPES = ("all", "stage", "provider", "tenant")
_WORKERS = "provider."


@dataclass(frozen=True, slots=True)
class Target:
    """What a pause is about: a scope and a name in it, which is empty for all."""

    scope: str
    name: str = ""

    def __str__(self) -> str:
        return self.scope if self.scope == ALL else f"{self.scope} {self.name}"

    @property
    def option(self) -> str:
        """Return how the command line names it."""
        return "--all" if self.scope == ALL else f"--{self.scope} {self.name}"


class Pauses:
    """What is paused now. The first pause of a target holds, with its reason, until the target is resumed."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._held: dict[Target, Paused] = {}
        self._changed = asyncio.Event()

    def take(self, envelope: Envelope) -> None:
        """Take in one record of `control.events`; those about other things are passed over."""
        try:
            record = self._codec.decode(envelope.value)
        except UndecodableError:
            return  # not ours, or of a later version
        if isinstance(record, Paused):
            self._held.setdefault(Target(record.scope, record.name), record)
        elif isinstance(record, Resumed):
            self._held.pop(Target(record.scope, record.name), None)
        else:
            return
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def hold(self, paused: Paused) -> None:
        """Obey *paused* at once, before it has come back from the log."""
        self._held.setdefault(Target(paused.scope, paused.name), paused)

    @property
    def held(self) -> Mapping[Target, Paused]:
        """Return what is paused, oldest first."""
        return dict(sorted(self._held.items(), key=lambda item: item[1].paused_at))

    def scopes(self) -> Mapping[str, int]:
        """Return how many pauses of each scope are held."""
        return {scope: sum(t.scope == scope for t in self._held) for scope in SCOPES}

    def of(self, *targets: Target) -> Paused | None:
        """Return the pause of the first of *targets* that has one."""
        if not self._held:  # asked for every record
            return None
        return next((self._held[target] for target in targets if target in self._held), None)

    def stage(self, role: str) -> Paused | None:
        """Return why *role* must consume nothing now; None if it may."""
        if not self._held:
            return None
        targets = [Target(ALL), Target(STAGE, role)]
        if role.startswith(_WORKERS):
            targets.append(Target(PROVIDER, role.removeprefix(_WORKERS)))
        return self.of(*targets)

    def call(self, role: str, tenant: str) -> Paused | None:
        """Return why the worker *role* must make no new call for *tenant*; None if it may."""
        if not self._held:
            return None
        return self.stage(role) or self.of(Target(TENANT, tenant))

    async def running(self, role: str) -> None:
        """Return once *role* may consume."""
        while self.stage(role) is not None:
            await self.moved()

    async def moved(self) -> None:
        """Return when anything is paused or resumed."""
        await self._changed.wait()


async def tell(outbox: Outbox, record: Paused | Resumed) -> None:
    """Write *record* to `control.events`; returns when the log has acknowledged it."""
    key = f"{record.scope} {record.name}".strip().encode()
    await (await outbox.send(Emit(CONTROL_EVENTS, 0, key, record)))
