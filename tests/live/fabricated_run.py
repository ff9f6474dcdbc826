"""What a kill run leaves, made up: every request answered once, ready to have defects planted in it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.codec import Codec
from schemas.completion import Result
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision, DecisionCore, DecisionMeta, Facts, PlanStep, Trace
from schemas.envelope import Envelope
from schemas.identity import Origin, job_key
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.logdir import LogWriter
from schemas.request import Request
from schemas.sealed import Body
from schemas.signal import Observations, SignalSet
from schemas.topics import (
    DEAD_LETTERS,
    DECISIONS,
    REQUESTS,
    RESULTS,
    attempts_topic,
    jobs_topic,
    signals_topic,
)

COUNT = 5
SIGNALS, LEDGER, JOBS = signals_topic("heuristics"), attempts_topic("north"), jobs_topic("north")
START_S = 1_700_000_000.0


def request_id(number: int) -> bytes:
    """Return an id."""
    return bytes([number]) * 16


def key(number: int, attempt: int = 0) -> str:
    """Return the idempotency key of a request's call."""
    return job_key(request_id(number), 0, 0, attempt)


def a_request(number: int) -> Request:
    """Return a request."""
    body = Body(0, b"\x00" * 32, None)
    return Request(request_id(number), "t", "batch", body, "/v1", "auto", 0, 0, 0, "p", "r")


def a_job(number: int, model: str = "m", attempt: int = 0) -> Job:
    """Return a job of provider north."""
    return Job(
        request_id=request_id(number),
        origin=Origin(0, number),
        step=0,
        branch=0,
        attempt=attempt,
        provider="north",
        model=model,
        plan=(PlanStep("north", model, 1, 1000),),
        plan_index=0,
        tries=1,
        decision="d",
        body=Body(0, b"\x00" * 32, None),
        endpoint="/v1",
        call_timeout_ms=6000,
        not_before=0,
        deadline=0,
        accepted_at=0,
        policy_hash="p",
        recipe="r",
        tenant="t",
    )


def a_result(number: int) -> Result:
    """Return a good result."""
    return Result(request_id(number), "t", 200, "", "", "north", "m", "d", 0, 0.0, 0, 0, "p")


def an_end(number: int, outcome: str, attempt: int = 0) -> AttemptEnded:
    """Return the end of an attempt of a request."""
    place = Origin(0, number)
    return AttemptEnded(request_id(number), place, 0, 0, attempt, "north", "m", "w", 0, outcome, 200, "")


def a_start(number: int, attempt: int = 0) -> AttemptStarted:
    """Return the start of an attempt of a request, whose call may take six seconds."""
    place = Origin(0, number)
    return AttemptStarted(request_id(number), place, 0, 0, attempt, "north", "m", "w", 0, 6000, number)


def a_signal(number: int, offset: int | None = None) -> SignalSet:
    """Return a request's signals."""
    place = Origin(0, number if offset is None else offset)
    return SignalSet(request_id(number), place, "heuristics", "p", "", Observations.of([]), 0, 0)


def a_decision(number: int, model: str = "m") -> Decision:
    """Return the decision for *model*."""
    core = DecisionCore(
        policy_hash="p",
        recipe="r",
        outcome="routed",
        failure="",
        decision="d",
        rule=Trace(),
        candidates=(model,),
        scores=(1.0,),
        propensities=(1.0,),
        chosen=model,
        plan=(PlanStep("north", model, 1, 6000),),
        signals_used=(),
        signals_missing=(),
        selector="static",
        salt="",
        draw=0.0,
        facts=Facts(),
    )
    return Decision(request_id(number), Origin(0, number), core, DecisionMeta((), 0, 0))


def a_letter(offset: int, value: bytes) -> DeadLetter:
    """Return the dead letter of an unreadable record in the inbox."""
    return DeadLetter("admission", "UndecodableError", "", "inbox.json", 0, offset, 0, 1, "", 0, value=value)


@dataclass
class Left:
    """What a run left, before it is written: every request answered once, one after the other."""

    submitted: list[dict[str, Any]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    poisons: list[dict[str, Any]] = field(default_factory=list)
    disturbances: list[dict[str, Any]] = field(default_factory=list)
    records: list[tuple[str, Any, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fill it with a run without a defect."""
        for number in range(COUNT):
            at = START_S + number * 10
            row = {"request_id": request_id(number).hex(), "run": "r", "custom_id": f"c{number}"}
            self.submitted.append({**row, "acknowledged": True})
            self.records += [
                (REQUESTS, a_request(number), at - 0.5),
                (SIGNALS, a_signal(number), at - 0.4),
                (DECISIONS, a_decision(number), at - 0.3),
                (JOBS, a_job(number), at - 0.2),
                (LEDGER, a_start(number), at - 0.1),
                (RESULTS, a_result(number), at + 1.1),
                (LEDGER, an_end(number, "ok"), at + 1.2),
            ]
            self.call(number, at)

    def try_again(self, number: int, at: float) -> None:
        """Make a further attempt, as the product would."""
        self.records += [
            (JOBS, a_job(number, attempt=1), at - 0.2),
            (LEDGER, a_start(number, 1), at - 0.1),
            (LEDGER, an_end(number, "ok", 1), at + 1.2),
        ]
        self.call(number, at, attempt=1)

    def poison(self, letter: bytes | None) -> None:
        """Note an unreadable record of the inbox; its dead letter holds *letter*, if there is one."""
        sha = hashlib.sha256(b"poison").hexdigest()
        row = {"topic": "inbox.json", "partition": 0, "offset": 7, "sha256": sha, "acknowledged": True}
        self.poisons.append(row)
        if letter is not None:
            self.records.append((DEAD_LETTERS, a_letter(7, letter), START_S))

    def call(self, number: int, at: float, *, attempt: int = 0, status: int = 200) -> None:
        """Note a call of one second."""
        self.calls.append(
            {
                "time": at,
                "ended": at + 1.0,
                "provider": "north",
                "model": "m",
                "idempotency_key": key(number, attempt),
                "request_id": request_id(number).hex(),
                "status": status,
            }
        )

    def kill(self, at: float, role: str = "provider.north") -> None:
        """Note a kill."""
        self.kills.append({"time": at, "role": role, "pid": 1, "phase": "in_step", "in_flight": 60})

    def without(self, topic: str, number: int) -> None:
        """Drop a request's records from *topic*."""
        self.records = [r for r in self.records if (r[0], r[1].request_id) != (topic, request_id(number))]

    def uncalled(self, number: int) -> None:
        """Drop a request's calls."""
        self.calls = [c for c in self.calls if c["request_id"] != request_id(number).hex()]

    def write(self, out: Path) -> Path:
        """Write it all to *out*."""
        for name, rows in (
            ("submitted", self.submitted),
            ("kills", self.kills),
            ("provider_calls", self.calls),
            ("poisons", self.poisons),
            ("disturbances", self.disturbances),
        ):
            (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        codec = Codec()
        with LogWriter(out / "log", "cluster", "signalbox") as writer:
            offsets: Counter[str] = Counter()
            for topic, record, at in self.records:
                offset = record.request_id[0] if topic == REQUESTS else offsets[topic]
                offsets[topic] += 1
                value = codec.encode(record)
                writer.append(Envelope(topic, 0, offset, round(at * 1000), record.request_id, value))
            writer.close({})
        return out
