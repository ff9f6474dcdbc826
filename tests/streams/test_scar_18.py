"""Scar 18: a policy that changes while requests are under way never decides one that it did not stamp.

Seen elsewhere as hot reloads that mixed two versions in one request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from agents.policy import Policy
from agents.testing import policy_of
from schemas.decision import Decision
from schemas.topics import DECISIONS, REQUESTS, SHADOW_DECISIONS, inbox_topic, jobs_topic, signals_topic
from streams.activation import Order, activate, rollback, shadow
from streams.app import make_world, roles_for
from streams.log import TP, Placed
from streams.runners import World
from streams.runners.joining import JoinRunner
from streams.telemetry import Telemetry
from tests.streams.plays import Play, Worker

MEMBERS, PARTITIONS, TIMES, BURST, UNDER_WAY = 3, 6, 100, 3, 60
YAML = """
providers:
  models:
    - {name: one, backend_refs: [{name: north}]}
    - {name: two, backend_refs: [{name: north}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
  decisions:
    - {name: code_one, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: one}]}
    - {name: rest_one, priority: 0, modelRefs: [{model: one}]}
deadlines: {request_s: 600, call_s: 60}
"""
OTHER = (
    YAML.replace("code_one", "code_two")
    .replace("rest_one", "rest_two")
    .replace("{model: one}", "{model: two}")
)
"""Every decision and model of it is another, so that whoever decided can be told from what was decided."""
ORDER = Order("test", "again")
BODIES = (
    b'{"messages":[{"role":"user","content":"some python"}]}',
    b'{"messages":[{"role":"user","content":"hello"}]}',
)


@dataclass
class Load:
    """Requests that users write to the inbox, spread over its partitions, so many at once at most."""

    play: Play
    asked: int = 0
    done: bool = False

    async def run(self) -> None:
        """Write bursts, letting everything else go on in between, until told to stop."""
        while not self.done:
            for _ in range(BURST if self.asked - self.play.total(["results"]) < UNDER_WAY else 0):
                place = (inbox_topic("json"), self.asked % PARTITIONS)
                self.play.log.append(place, None, BODIES[self.asked % 2])
                self.asked += 1
            await asyncio.sleep(0.01)


async def changes(world: World, first: Policy, second: Policy, times: int) -> None:
    """Activate *second* and roll back to *first*, again and again, with each in shadow of the other."""
    for number in range(times):
        assert await activate(world, second, ORDER)
        assert world.policies.active == second.hash
        if number % 10 == 0:
            await shadow(world, first if number % 20 else second, ORDER)
        await asyncio.sleep(0.002)
        assert await rollback(world, ORDER)
        assert world.policies.active == first.hash
        await asyncio.sleep(0.002)


async def operating(play: Play) -> World:
    """Activate the play's policy and return the world of whoever gives orders."""
    await play.publish()
    operator = make_world(play.log, Telemetry(play.clock, quiet=True), "operator")
    await operator.policies.start()
    return operator


async def workers(play: Play) -> list[Worker]:
    """Start three workers, each with every role."""
    return [await play.worker(f"w{n}", roles_for(play.policy)) for n in range(MEMBERS)]


def by_request(play: Play, topic: str) -> dict[bytes, list[object]]:
    """Return the records of *topic* by request."""
    found: dict[bytes, list[object]] = {}
    for record in play.records(topic):
        found.setdefault(record.request_id, []).append(record)
    return found


def mixed(play: Play) -> list[str]:
    """Return each way in which a request was treated by another policy than its stamp."""
    stamps = {r.request_id: r.policy_hash for r in play.records(REQUESTS)}
    ends = {policy_of(YAML).hash: "one", policy_of(OTHER).hash: "two"}
    wrong = [
        f"decided by {d.core.policy_hash[:8]} ({d.core.decision}), stamped {stamps[d.request_id][:8]}"
        for d in play.records(DECISIONS)
        if d.core.policy_hash != stamps[d.request_id]
        or d.core.chosen != ends[stamps[d.request_id]]
        or not d.core.decision.endswith(d.core.chosen)
    ]
    for topic in (signals_topic("heuristics"), jobs_topic("north"), "results"):
        for record in play.records(topic):
            stamp = stamps[record.request_id]
            if (record.policy_hash, getattr(record, "model", ends[stamp])) != (stamp, ends[stamp]):
                wrong.append(f"{topic}: {record.policy_hash[:8]}, stamped {stamp[:8]}")
    return wrong


async def played(times: int) -> tuple[Play, int]:
    """Play *times* activations and rollbacks under load to the end; return the play and what was asked."""
    async with Play(YAML, partitions=PARTITIONS) as play:
        operator = await operating(play)
        everyone = await workers(play)
        load = Load(play)
        writing = asyncio.create_task(load.run())
        await changes(operator, play.policy, policy_of(OTHER), times)
        load.done = True
        await writing
        await play.until(lambda: play.total(["results"]) >= load.asked, "every result")
        await operator.policies.stop()
        assert [w.failures for w in everyone] == [[]] * MEMBERS
        return play, load.asked


async def test_scar_18_a_hundred_activations_and_rollbacks_under_load_mix_no_two_policies() -> None:
    """With three workers of each role: each request is observed, decided and answered by its stamp, once."""
    play, asked = await played(TIMES)

    stamped = [r.policy_hash for r in play.records(REQUESTS)]
    assert mixed(play) == []
    assert len(stamped) == asked > TIMES
    assert set(stamped) == {play.policy.hash, policy_of(OTHER).hash}
    for topic in (DECISIONS, "results"):
        found = by_request(play, topic)
        assert (len(found), {len(records) for records in found.values()}) == (asked, {1})
    assert play.records("dead-letters") == []
    assert {r.status for r in play.records("results")} == {200}


async def test_scar_18_the_check_sees_a_decision_role_that_obeys_the_active_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The defect planted: deciding by what is active now, whatever the stamp says, is found out."""
    step = JoinRunner._step

    async def by_the_active(self: JoinRunner, p: int, lane: object, gathered: object) -> object:
        active = self._world.policies.active
        if self.group == "decision" and active is not None:
            object.__setattr__(gathered.request, "policy_hash", active)  # type: ignore[attr-defined]
        return await step(self, p, lane, gathered)  # type: ignore[arg-type]

    monkeypatch.setattr(JoinRunner, "_step", by_the_active)
    play, _ = await played(10)

    assert mixed(play) != []


async def test_the_shadow_decides_beside_and_changes_nothing() -> None:
    """While it runs each request has a decision of its stamp, and one of the shadow that nobody acts on."""
    async with Play(YAML, partitions=PARTITIONS) as play:
        operator = await operating(play)
        other = policy_of(OTHER)
        await shadow(operator, other, ORDER)
        everyone = await workers(play)
        for n in range(60):
            play.log.append((inbox_topic("json"), n % PARTITIONS), None, BODIES[n % 2])
        await play.until(lambda: play.total(["results"]) == 60, "every result")
        await operator.policies.stop()

        beside: list[Decision] = play.records(SHADOW_DECISIONS)
        decided = {d.request_id: d for d in play.records(DECISIONS)}
        assert mixed(play) == []
        assert {d.request_id for d in beside} == decided.keys()
        assert {d.core.policy_hash for d in beside} == {other.hash}
        assert {d.core.chosen for d in beside} == {"two"}
        assert all(d.meta == decided[d.request_id].meta for d in beside)
        assert [w.failures for w in everyone] == [[]] * MEMBERS


async def test_nothing_is_committed_before_the_shadow_is_acknowledged() -> None:
    """The decision is out and acted upon, its shadow on its way: the request stays uncommitted."""
    async with Play(YAML, partitions=1) as play:
        operator = await operating(play)
        await shadow(operator, policy_of(OTHER), ORDER)
        await play.worker("rest", [role for role in roles_for(play.policy) if role != "decision"])
        decider = await play.worker("d1", ["decision"])
        arrived = asyncio.Event()
        at_once = decider.cable.send

        async def slowly(place: TP, *rest: Any) -> Any:
            placed = await at_once(place, *rest)
            return _when(arrived, placed) if place[0] == SHADOW_DECISIONS else placed

        decider.cable.send = slowly  # type: ignore[method-assign, assignment]
        play.log.append((inbox_topic("json"), 0), None, BODIES[0])
        await play.until(lambda: play.total(["results"]) == 1, "the result")
        await asyncio.sleep(1.2)  # two rounds of commits
        before = await decided_up_to(decider)
        arrived.set()
        for _ in range(500):
            if (after := await decided_up_to(decider)) > before:
                break
            await asyncio.sleep(0.02)
        await operator.policies.stop()

        assert (before, after) == (0, 1)


async def _when(event: asyncio.Event, placed: Any) -> Placed:
    await event.wait()
    found: Placed = await placed
    return found


async def decided_up_to(decider: Worker) -> int:
    """Return the offset of `requests` that the decision role has committed."""
    place = (REQUESTS, 0)
    found = await decider.cable.members[0].committed([place])
    return found[place].offset if place in found else 0
