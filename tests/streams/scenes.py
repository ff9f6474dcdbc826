"""Scenes: what a script does to a log, step by step, played on the Faust host and on the fold.

A step either does something (appends records, breaks or mends a fake) or lets time pass; after each,
the side under test goes on until it is still. Both sides have clocks that stand still in between.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agents.admission import Admission
from agents.policy import Policy, PolicyBook
from agents.providers import provider
from agents.retry import retry_stage
from agents.signals import Classified, signal
from agents.testing import HashClassifier, ScriptedProvider, policy_of
from agents.topology import (
    Stage,
    admission_stage,
    decision_stage,
    dispatch_stage,
    signal_stage,
    work_stage,
)
from replay.fold import Fold, Providers, VirtualClock
from schemas.codec import Codec, UndecodableError
from schemas.control import PolicyActivated, PolicyPublished
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.job import AttemptStarted
from schemas.retry import Retry
from schemas.topics import CONTROL_POLICY, REQUESTS, jobs_topic, signals_topic
from streams.app import INBOX, roles_for, signal_roles, topic_counts
from tests.streams.plays import START, Play

WORKER = "w1"
Bag = Mapping[tuple[str, int], Counter[tuple[bytes | None, bytes]]]


class Side:
    """One driver under test, as scripts see it."""

    def __init__(
        self, policy: Policy, clock: VirtualClock, fakes: tuple[HashClassifier, ScriptedProvider]
    ) -> None:
        self.policy = policy
        self.clock = clock
        self.codec = Codec(compiled=True)
        self.classifier, self.provider = fakes

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes, timestamp: int | None = None
    ) -> None:
        """Append bytes, stamped *timestamp* (ms) or with the clock."""
        raise NotImplementedError

    def put(self, topic: str, record: object, partition: int = 0, timestamp: int | None = None) -> None:
        """Append *record*."""
        key = getattr(record, "request_id", b"")
        self.append(topic, partition, key, self.codec.encode(record), timestamp)

    def publish(self, policy: Policy | None = None) -> None:
        """Publish and activate *policy*, the scene's own by default."""
        chosen = policy or self.policy
        self.put(CONTROL_POLICY, PolicyPublished(chosen.hash, chosen.normal_form, "test", START))
        self.put(CONTROL_POLICY, PolicyActivated(chosen.hash, "test", "published", START))

    def envelopes(self, topic: str) -> Sequence[Envelope]:
        """Return every record of *topic*."""
        raise NotImplementedError

    def first(self, topic: str) -> object:
        """Return the first record of *topic*, decoded."""
        return self.codec.decode(self.envelopes(topic)[0].value)


@dataclass(frozen=True)
class Scene:
    """Steps (a script, or ms that pass) under a policy; *without* are roles that the script plays."""

    yaml: str
    steps: Sequence[Callable[[Side], None] | int]
    without: Sequence[str] = ()
    partitions: int = 2

    def roles(self, policy: Policy) -> list[str]:
        """Return the roles that run."""
        return [role for role in roles_for(policy) if role not in self.without]

    async def on_fold(self) -> tuple[Bag, list[int]]:
        """Play it on the fold; return the records, and how many there were after each step."""
        side = FoldSide(self)
        totals = []
        for step in self.steps:
            _do(side, step)
            await side.fold.run()
            totals.append(side.total())
        return bag(side, side.topics), totals

    async def on_host(self, totals: Sequence[int]) -> Bag:
        """Play it on the Faust host; *totals* say how many records to wait for after each step."""
        async with Play(self.yaml, partitions=self.partitions) as play:
            worker = await play.worker(WORKER, self.roles(play.policy))
            side = HostSide(play)
            for step, total in zip(self.steps, totals, strict=True):
                _do(side, step)
                try:
                    await play.until(lambda total=total: play.total() >= total)  # type: ignore[misc]
                except TimeoutError:
                    break  # the comparison says what is missing
                await play.quiet(4)
            await play.quiet()
            assert worker.failures == []
            return bag(side, list(play.log._counts))


def _do(side: Side, step: Callable[[Side], None] | int) -> None:
    if isinstance(step, int):
        side.clock.advance(step)
    else:
        step(side)


class HostSide(Side):
    """The Faust host."""

    def __init__(self, play: Play) -> None:
        super().__init__(play.policy, play.clock, (play.classifier, play.provider))
        self._play = play

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes, timestamp: int | None = None
    ) -> None:
        """Append to its log."""
        self._play.log.append((topic, partition), key, value, (), timestamp)

    def envelopes(self, topic: str) -> Sequence[Envelope]:
        """Read its log."""
        return self._play.log.envelopes(topic)


class FoldSide(Side):
    """The fold."""

    def __init__(self, scene: Scene) -> None:
        policy = policy_of(scene.yaml)
        super().__init__(policy, VirtualClock(START), (HashClassifier(), ScriptedProvider()))
        self.topics = list(topic_counts(policy.provider_names, scene.partitions))
        self._book = PolicyBook()
        dialects = {name: provider["openai"]() for name in policy.provider_names}
        self.fold = Fold(
            [self._stage(role, scene.partitions) for role in scene.roles(policy)],
            self.codec,
            scene.partitions,
            self.clock,
            self._book,
            Providers(self.provider, dialects, WORKER),
        )

    def _stage(self, role: str, partitions: int) -> Stage:
        kind, _, name = role.partition(".")
        if kind == "signals":
            classified = any(cls.role == name and issubclass(cls, Classified) for _, cls in signal)
            return signal_stage(name, self._book, self.classifier, self.clock, classified=classified)
        if kind == "provider":
            return work_stage(name)
        if role == "decision":
            return decision_stage(signal_roles(), self._book, shadow=self._in_shadow, partitions=partitions)
        if role == "dispatch":
            return dispatch_stage()
        if role == "retry":
            return retry_stage()
        return admission_stage(INBOX, self._admission, "memory", partitions)

    def _admission(self) -> Admission:
        return Admission(self._book[self.fold.active or "(none)"], "default", self.clock.now)

    def _in_shadow(self) -> Policy | None:
        return self.fold.in_shadow()

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes, timestamp: int | None = None
    ) -> None:
        """Append to its log."""
        self.fold.append((topic, partition), key, value, (), timestamp)

    def envelopes(self, topic: str) -> Sequence[Envelope]:
        """Read its log."""
        return self.fold.envelopes(topic)

    def total(self) -> int:
        """Return how many records there are."""
        return sum(len(self.fold.envelopes(topic)) for topic in self.topics)


def bag(side: Side, topics: Sequence[str]) -> Bag:
    """Return the records of each partition as a bag, with offsets replaced by what lies there."""
    at = {(e.topic, e.partition, e.offset): e.value for topic in topics for e in side.envelopes(topic)}
    bags: dict[tuple[str, int], Counter[tuple[bytes | None, bytes]]] = {}
    for topic in topics:
        for envelope in side.envelopes(topic):
            place = (topic, envelope.partition)
            value = _without_offsets(side.codec, envelope, at)
            bags.setdefault(place, Counter())[envelope.key, value] += 1
    return bags


def _without_offsets(
    codec: Codec, envelope: Envelope, at: Mapping[tuple[str, int, int], bytes | None]
) -> bytes:
    try:
        record = codec.decode(envelope.value)
    except UndecodableError:
        return envelope.value or b""
    p = envelope.partition
    if isinstance(record, Decision):
        used = [
            replace(i, offset=_digest(at[signals_topic(i.role), p, i.offset])) for i in record.meta.inputs
        ]
        record = replace(record, meta=replace(record.meta, inputs=tuple(used)))
    elif isinstance(record, AttemptStarted):
        place = (jobs_topic(record.provider), p, record.job_offset)
        record = replace(record, job_offset=_digest(at[place]))
    elif isinstance(record, Retry):
        # The headers of the job that waits are the host's own.
        record = replace(record, headers=())
    elif isinstance(record, DeadLetter) and record.topic != REQUESTS:
        # The original's headers are the host's own; the fold's records have none.
        record = replace(record, offset=0, headers=(), policy_hash="")
    return codec.encode(record)


def _digest(value: bytes | None) -> int:
    return int.from_bytes(hashlib.sha256(value or b"").digest()[:7], "big")


def differences(fold: Bag, host: Bag) -> list[str]:
    """Return what only one of the two emitted, decoded, one line for each record."""
    codec = Codec(compiled=True)
    lines = []
    for place in sorted({*fold, *host}):
        ours, theirs = fold.get(place, Counter()), host.get(place, Counter())
        for name, extra in (("fold", ours - theirs), ("host", theirs - ours)):
            lines += [
                f"{place} only {name}: {_shown(codec, value)}"
                for (_, value), n in extra.items()
                for _ in range(n)
            ]
    return lines


def _shown(codec: Codec, value: bytes) -> str:
    try:
        return str(codec.decode(value))
    except UndecodableError:
        return repr(value)
