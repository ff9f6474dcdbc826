"""What a kill run left behind, read once: its rows, and of its log what the checker's rules need."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.codec import Codec, UndecodableError
from schemas.completion import Result
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.logdir import LogDir
from schemas.request import Request
from schemas.signal import SignalSet
from schemas.topics import DEAD_LETTERS, DECISIONS, REQUESTS, RESULTS

AGAIN = frozenset({"unanswered", "parked"})
"""Ends of an attempt after which the same key is called again."""

Row = Mapping[str, Any]
Place = tuple[int, int]


@dataclass(slots=True)
class Evidence:
    """What the files say; request ids as 32 hex digits, times in seconds since the epoch by the log."""

    submitted: Sequence[Row]
    kills: Sequence[Row]
    calls: Sequence[Row]
    poisons: Sequence[Row] = ()
    disturbances: Sequence[Row] = ()
    requests: Counter[str] = field(default_factory=Counter)
    origins: dict[Place, str] = field(default_factory=dict)
    signals: dict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    decisions: Counter[str] = field(default_factory=Counter)
    decided: set[Place] = field(default_factory=set)
    chosen: dict[str, tuple[str, str]] = field(default_factory=dict)
    jobs: Counter[str] = field(default_factory=Counter)
    derived: set[tuple[Place, str]] = field(default_factory=set)
    """Origin and request of every signal, decision and job."""
    first_jobs: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    last_attempt: dict[str, int] = field(default_factory=dict)
    started: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """key -> when its starts came to lie in the log, and how long each call may take (s)."""
    unanswered: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, float] = field(default_factory=dict)
    ended_first: set[str] = field(default_factory=set)
    """Keys whose end lies in the ledger before any start of theirs."""
    results: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, int] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)
    letters: list[tuple[str, str, Place, str]] = field(default_factory=list)
    """Dead letters: stage, topic, place and digest of the original's value."""
    dead: set[str] = field(default_factory=set)


def read(out: Path) -> Evidence:
    """Return what *out* holds; raises OSError, ValueError or `LogDirError` where it cannot be read."""
    evidence = Evidence(
        rows(out / "submitted.jsonl"),
        rows(out / "kills.jsonl"),
        rows(out / "provider_calls.jsonl"),
        rows(out / "poisons.jsonl", needed=False),
        rows(out / "disturbances.jsonl", needed=False),
    )
    log = LogDir(out / "log")
    codec = Codec(log.schemas().values())
    wanted = (REQUESTS, RESULTS, DECISIONS, DEAD_LETTERS)
    for topic in sorted(log.topics(), key=lambda name: not name.startswith("attempts.")):
        if topic in wanted or topic.startswith(("jobs.", "attempts.", "signals.")):
            for envelope in log.read(topic):
                _take(evidence, envelope, codec)
    return evidence


def rows(path: Path, *, needed: bool = True) -> list[Row]:
    """Return the objects of a file of JSON lines; one that is not *needed* may be missing."""
    if not needed and not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _take(evidence: Evidence, envelope: Envelope, codec: Codec) -> None:
    try:
        record: Any = codec.decode(envelope.value)
    except UndecodableError:
        return
    request_id = record.request_id.hex() if record.request_id is not None else ""
    if isinstance(record, SignalSet | Decision | Job):
        evidence.derived.add((_origin(record), request_id))
    match record:
        case Request():
            evidence.requests[request_id] += 1
            evidence.origins[envelope.partition, envelope.offset] = request_id
        case SignalSet():
            evidence.signals[record.role].add(_origin(record))
        case Decision():
            evidence.decisions[request_id] += 1
            evidence.decided.add(_origin(record))
            if record.core.plan:
                plan = record.core.plan[0]
                evidence.chosen.setdefault(request_id, (plan.provider, plan.model))
        case Result():
            evidence.results[request_id] += 1
            evidence.statuses.setdefault(request_id, record.status)
            evidence.answered_at.setdefault(request_id, envelope.timestamp / 1000)
        case DeadLetter():
            _take_letter(evidence, record)
        case _:
            _take_work(evidence, envelope, record)


def _origin(record: Any) -> Place:
    return record.origin.partition, record.origin.offset


def _take_letter(evidence: Evidence, letter: DeadLetter) -> None:
    digest = hashlib.sha256(letter.value or b"").hexdigest()
    evidence.letters.append((letter.stage, letter.topic, (letter.partition, letter.offset), digest))
    if letter.request_id is not None:
        evidence.dead.add(letter.request_id.hex())


def _take_work(evidence: Evidence, envelope: Envelope, record: Any) -> None:
    at = envelope.timestamp / 1000
    match record:
        case Job():
            request_id = record.request_id.hex()
            evidence.jobs[record.key] += 1
            last = evidence.last_attempt.get(request_id, 0)
            evidence.last_attempt[request_id] = max(last, record.attempt)
            if record.attempt == 0:
                evidence.first_jobs[request_id].append((record.provider, record.model))
        case AttemptStarted():
            evidence.started[record.key].append((at, record.call_timeout_ms / 1000))
        case AttemptEnded() if record.outcome in AGAIN:
            evidence.unanswered[record.key].append(at)
        case AttemptEnded():
            if record.key not in evidence.started:
                evidence.ended_first.add(record.key)
            evidence.ended.setdefault(record.key, at)
        case _:
            message = f"{envelope.topic} holds a {type(record).__name__}, which does not belong there"
            raise ValueError(message)
