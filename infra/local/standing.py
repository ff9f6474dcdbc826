"""What is stuck in a stack, since when, and what to do next: judged from what workers and broker tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.local import control
from infra.local.control import Health, Status
from infra.local.errors import StackError
from infra.local.state import Phase

if TYPE_CHECKING:
    from streams.standing import GroupLag, Standing

SLOW_S = 30.0
"""A concern or a wait that is younger is no news."""
LOOK_AGAIN_S = 5.0
"""Between two looks at a broker, of which only both together tell whether anything moves."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that should move and does not; *since_s* is None where nobody knows."""

    what: str
    since_s: float | None
    why: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Account:
    """A stack with all that is known of it; *standing* is None if the broker does not tell."""

    status: Status
    standing: Standing | None
    stuck: tuple[Stuck, ...]

    @property
    def good(self) -> bool:
        """Whether everything runs and nothing is stuck."""
        return self.status.healthy and not self.stuck


async def account(folder: Path) -> Account:
    """Return how the stack in *folder* is; raises `NothingRunning`."""
    status = await control.status(folder)
    standing, away = await _asked(folder)
    return Account(status, standing, tuple(judged(status, standing, folder, away=away)))


async def account_of(broker: str, look_again_s: float = LOOK_AGAIN_S) -> Account:
    """Return how the deployment on *broker* is, by two looks; its workers are not known from here.

    Raises `StackError` without the broker.
    """
    from agents.errors import RouterError  # noqa: PLC0415 - late, as in every command
    from infra.local.commands import broker_of  # noqa: PLC0415 - as above
    from streams.cli import connected, located  # noqa: PLC0415 - as above
    from streams.standing import take  # noqa: PLC0415 - as above

    try:
        async with connected(located(broker_of, broker, Path())) as world:
            first = await take(world)
            if any(_waits_long(group, first) for group in first.groups):
                await asyncio.sleep(look_again_s)
            second = await take(world)
    except RouterError as error:
        raise StackError(str(error)) from error
    status = Status(Phase.RUNNING, None, (), ())
    return Account(status, second, tuple(standing_still(first, second)))


def _waits_long(group: GroupLag, standing: Standing) -> bool:
    """Tell whether *group* waits longer than a single record of it may take."""
    # A provider's worker finishes nothing while its one job is being called, however well that goes.
    least = standing.longest_call_s if group.role.startswith("provider.") else 0.0
    return bool(group.lag) and (_age(group, standing) or 0.0) >= max(SLOW_S, least)


def standing_still(first: Standing, second: Standing) -> Iterator[Stuck]:
    """Yield the groups that finished nothing between two looks, though records wait that nobody paused."""
    before = {group.role: group for group in first.groups}
    paused = {pause.name for pause in second.pauses} | {
        f"provider.{pause.name}" for pause in second.pauses if pause.scope == "provider"
    }
    if any(pause.scope == "all" for pause in second.pauses):
        return
    for group in second.groups:
        then = before.get(group.role)
        moved = then is None or then.waiting_since != group.waiting_since or then.lag > group.lag
        # What waits in a retry tier is not due yet, which is what it is there for.
        if moved or group.role in {*paused, "retry"} or not _waits_long(group, second):
            continue
        yield Stuck(
            group.role,
            _age(group, second),
            f"{group.lag} records wait and none was finished",
            f"ask /healthz of its workers; if none runs: `signalbox worker {group.role}`",
        )


async def _asked(folder: Path) -> tuple[Standing | None, bool]:
    """Return what the broker tells, and whether it is away; a bare stack has no topics to tell of."""
    from agents.errors import RouterError, Unavailable  # noqa: PLC0415 - late, as in every command
    from infra.local.commands import broker_of  # noqa: PLC0415 - as above
    from streams.cli import connected, located  # noqa: PLC0415 - as above
    from streams.standing import take  # noqa: PLC0415 - as above

    try:
        async with connected(located(broker_of, None, folder)) as world:
            return await take(world), False
    except Unavailable:
        return None, True
    except RouterError:
        return None, False


def judged(status: Status, standing: Standing | None, folder: Path, *, away: bool) -> Iterator[Stuck]:
    """Yield what is stuck in the stack of *folder*."""
    for one in status.components:
        if not one.healthy:
            yield Stuck(one.name, None, "it does not answer", f"read its log in {folder}; `{_again(folder)}`")
    for one in status.workers:
        yield from _worker(one, standing)
    if away:
        yield Stuck("the topics", None, "no broker answers", f"read its log in {folder}; `{_again(folder)}`")
    if standing is None:
        return
    served = {one.name.rpartition("/")[0] for one in status.workers}
    for group in standing.groups:
        if group.lag and group.role not in served and served:
            yield Stuck(
                group.role, _age(group, standing), f"{group.lag} records wait and no worker serves this role",
                f"`signalbox worker {group.role}`",
            )  # fmt: skip


def _again(folder: Path) -> str:
    return f"signalbox down --dir {folder}` and `signalbox up --dir {folder}"


def _worker(one: Health, standing: Standing | None) -> Iterator[Stuck]:
    report = one.report
    since = _age(_group(one, standing), standing)
    if report is None:
        if one.healthy:
            return
        why = "it does not run" if one.pid is None else "it does not answer"
        again = f", after {one.restarts} restarts" if one.restarts else ""
        yield Stuck(one.name, since, why + again, f"tail {one.log}")
        return
    if report.get("waits_for") == "policy":
        yield Stuck(
            one.name, report.get("still_s"), "it waits for a policy that is not published",
            "publish it: `signalbox up --workers --policy FILE`",
        )  # fmt: skip
    elif report.get("still_s", 0.0) >= SLOW_S:
        for reason in report.get("reasons", []):
            yield Stuck(one.name, report["still_s"], reason, f"tail {one.log}; it ends itself")
    elif not one.healthy:
        reasons = "; ".join(report.get("reasons", [])) or "it is not ready"
        yield Stuck(one.name, since, reasons, f"tail {one.log}")


def _group(one: Health, standing: Standing | None) -> GroupLag | None:
    role = one.name.rpartition("/")[0]
    return next((g for g in standing.groups if g.role == role), None) if standing is not None else None


def _age(group: GroupLag | None, standing: Standing | None) -> float | None:
    if group is None or standing is None or group.waiting_since is None:
        return None
    return max(standing.at - group.waiting_since, 0) / 1000


def lanes(status: Status) -> Mapping[str, Mapping[str, Any]]:
    """Return the paused lanes of each worker: model -> until when (ms)."""
    found = {one.name: (one.report or {}).get("lanes") or {} for one in status.workers}
    return {name: paused for name, paused in found.items() if paused}


def told(found: Account) -> list[str]:
    """Return, for a person, what is stuck, what operators paused, which lanes wait, what lies unread."""
    lines = []
    for one in found.stuck:
        since = f" for {one.since_s:.0f} s" if one.since_s is not None else ""
        lines.append(f"STUCK  {one.what}{since}: {one.why}\n       next: {one.next_step}")
    for name, paused in lanes(found.status).items():
        for model, until in paused.items():
            lines.append(f"lane   {name} {model}: waits until {_clock(until)}, as its provider asked")
    standing = found.standing
    if standing is None:
        return lines
    from streams.pause_cli import described  # noqa: PLC0415 - late, as in every command

    lines += [f"paused {described(pause)}" for pause in standing.pauses]
    for group in standing.groups:
        if group.lag:
            age = _age(group, standing)
            lines.append(f"lag    {group.role}: {group.lag} records, the oldest for {age or 0:.0f} s")
    if standing.dead_letters:
        lines.append(f"dead   {standing.dead_letters} dead letters; next: `signalbox dlq list`")
    if not standing.policy_active:
        lines.append("policy none is active; next: `signalbox up --workers --policy FILE`")
    return lines


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")


def as_json(found: Account) -> dict[str, Any]:
    """Return all of it as one JSON object."""
    standing: dict[str, Any] = {"groups": None, "pauses": None, "dead_letters": None}
    if found.standing is not None:
        from streams.pause_cli import shown  # noqa: PLC0415 - late, as in every command

        standing = {
            "groups": [asdict(group) for group in found.standing.groups],
            "pauses": [shown(pause) for pause in found.standing.pauses],
            "dead_letters": found.standing.dead_letters,
        }
    return {
        "running": True,
        "healthy": found.status.healthy,
        "good": found.good,
        **asdict(found.status),
        "stuck": [asdict(one) for one in found.stuck],
        "lanes": lanes(found.status),
        **standing,
    }
