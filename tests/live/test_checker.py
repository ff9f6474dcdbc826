"""The checker of kill runs sees what it is there to see: each planted defect, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

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
from tests.live.checker import judge, main
from tests.live.checker_evidence import read

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


def defects(left: Left, out: Path) -> set[str]:
    """Return the kinds of defects that the checker sees."""
    verdict = judge(read(left.write(out)))
    return {kind for kind, found in verdict.defects.items() if found}


def test_a_run_without_defects_passes(tmp_path: Path) -> None:
    """Every request answered once is what the checker asks for."""
    assert defects(Left(), tmp_path) == set()


def lose_result(left: Left) -> None:
    """Drop a result."""
    left.without(RESULTS, 2)


def lose_request(left: Left) -> None:
    """Drop an accepted request and all that it caused."""
    for topic in (REQUESTS, SIGNALS, DECISIONS, JOBS, LEDGER, RESULTS):
        left.without(topic, 2)
    left.uncalled(2)


def answer_twice(left: Left) -> None:
    """Answer one request under two keys."""
    left.try_again(2, START_S + 100)


def repeat_unprovoked(left: Left) -> None:
    """Repeat a call that no kill interrupted."""
    left.call(2, START_S + 100)
    left.kill(START_S + 90)


def repeat_twice_for_one_kill(left: Left) -> None:
    """Repeat a call twice although only one kill interrupted it."""
    left.kill(START_S + 20.5)
    left.call(2, START_S + 28)
    left.call(2, START_S + 36)


def repeat_for_another_role(left: Left) -> None:
    """Repeat a call that was in flight when another role was killed."""
    left.kill(START_S + 20.5, "decision")
    left.call(2, START_S + 28)


def repeat_after_the_end(left: Left) -> None:
    """Repeat a call although the end of its job was in the log before the kill."""
    left.kill(START_S + 21.9)
    left.call(2, START_S + 28)


def act_twice(left: Left) -> None:
    """Send one request to two models by two decisions."""
    left.records.append((JOBS, a_job(2, "other"), START_S + 100))


def invent_result(left: Left) -> None:
    """Answer a request that nobody made."""
    left.records.append((RESULTS, a_result(99), START_S + 100))


def call_without_key(left: Left) -> None:
    """Call without an idempotency key."""
    left.calls[2]["idempotency_key"] = ""


def skip_signals(left: Left) -> None:
    """Let the heuristics role pass a request over."""
    left.without(SIGNALS, 2)


def skip_decision(left: Left) -> None:
    """Let the decision role pass a request over."""
    left.without(DECISIONS, 2)


def skip_job(left: Left) -> None:
    """Let dispatch pass a decision over."""
    left.without(JOBS, 2)
    left.without(LEDGER, 2)
    left.uncalled(2)


def leave_job_open(left: Left) -> None:
    """Never end a job that was started."""
    left.records.remove((LEDGER, an_end(2, "ok"), START_S + 20 + 1.2))


def call_beside(left: Left) -> None:
    """Call again after a kill, while the first call may still be under way."""
    left.kill(START_S + 20.5)
    left.call(2, START_S + 23)


def call_unannounced(left: Left) -> None:
    """Call without a start in the ledger."""
    left.records.remove((LEDGER, a_start(2), START_S + 20 - 0.1))


def announce_late(left: Left) -> None:
    """Write the start after the call was made."""
    index = left.records.index((LEDGER, a_start(2), START_S + 20 - 0.1))
    left.records[index] = (LEDGER, a_start(2), START_S + 20.5)


def end_before_start(left: Left) -> None:
    """Write the end of an attempt before its start."""
    end = left.records.index((LEDGER, an_end(2, "ok"), START_S + 20 + 1.2))
    start = left.records.index((LEDGER, a_start(2), START_S + 20 - 0.1))
    left.records[end], left.records[start] = left.records[start], left.records[end]
    left.records[end] = (LEDGER, a_start(2), START_S + 20 - 0.1)


def follow_the_second_decision(left: Left) -> None:
    """Dispatch a model that only a later Decision of the request names."""
    index = left.records.index((DECISIONS, a_decision(2), START_S + 20 - 0.3))
    left.records.insert(index, (DECISIONS, a_decision(2, "other"), START_S + 20 - 0.35))


def answer_before_the_start(left: Left) -> None:
    """Deliver a result before any call of it began."""
    index = left.records.index((RESULTS, a_result(2), START_S + 20 + 1.1))
    left.records[index] = (RESULTS, a_result(2), START_S + 19)


def signal_of_nothing(left: Left) -> None:
    """Write signals for an origin that holds another request."""
    left.records.append((SIGNALS, a_signal(99, 3), START_S + 100))


def call_of_nothing(left: Left) -> None:
    """Call with a key that no job has."""
    left.call(2, START_S + 100, attempt=5, status=500)


def drop_poison(left: Left) -> None:
    """Let an unreadable record vanish."""
    left.poison(None)


def change_poison(left: Left) -> None:
    """Dead-letter an unreadable record with other bytes."""
    left.poison(b"poisom")


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (lose_result, {"lost"}),
        (lose_request, {"lost", "not_in_log"}),
        (answer_twice, {"doubled"}),
        (repeat_unprovoked, {"called_again"}),
        (repeat_twice_for_one_kill, {"called_again"}),
        (repeat_for_another_role, {"called_again"}),
        (repeat_after_the_end, {"called_again"}),
        (act_twice, {"two_decisions_acted"}),
        (invent_result, {"strange_result"}),
        (call_without_key, {"keyless_call"}),
        (skip_signals, {"skipped"}),
        (skip_decision, {"skipped"}),
        (skip_job, {"skipped"}),
        (leave_job_open, {"skipped"}),
        (call_beside, {"called_beside"}),
        (call_unannounced, {"unstarted_call"}),
        (announce_late, {"unstarted_call"}),
        (end_before_start, {"reordered"}),
        (follow_the_second_decision, {"reordered"}),
        (answer_before_the_start, {"reordered"}),
        (signal_of_nothing, {"phantom"}),
        (call_of_nothing, {"phantom", "unstarted_call"}),
        (drop_poison, {"poison_lost"}),
        (change_poison, {"poison_lost"}),
    ],
)
def test_a_planted_defect_is_named(plant: Callable[[Left], None], kinds: set[str], tmp_path: Path) -> None:
    """What is wrong is found, and called by its name."""
    left = Left()
    plant(left)
    assert defects(left, tmp_path) == kinds


def repeat_for_a_kill(left: Left) -> None:
    """Repeat a call that a kill of its worker cut off."""
    left.kill(START_S + 20.5)
    left.call(2, START_S + 28)


def repeat_after_silence(left: Left) -> None:
    """Repeat a call that the worker gave up waiting for."""
    left.records.append((LEDGER, an_end(2, "unanswered"), START_S + 26))
    left.call(2, START_S + 28)


def collapse(left: Left) -> None:
    """Write a result and a job a second time."""
    left.records += [
        (RESULTS, a_result(2), START_S + 100),
        (JOBS, a_job(2), START_S + 100),
    ]


def try_again_after_failure(left: Left) -> None:
    """Call again, under the next key, after an error."""
    left.calls[2]["status"] = 503
    left.try_again(2, START_S + 100)


def disown_answer(left: Left) -> None:
    """Refuse a key that was answered while its worker died, so that the next attempt has to answer."""
    left.kill(START_S + 21.05)
    left.call(2, START_S + 28, status=429)
    left.try_again(2, START_S + 100)


def keep_poison(left: Left) -> None:
    """Dead-letter an unreadable record as it was."""
    left.poison(b"poison")


def jump(left: Left) -> None:
    """Call again too early by a clock that was wrong."""
    call_beside(left)
    row = {"kind": "clock_jump", "role": "provider.north", "began": START_S + 10, "ended": START_S + 22}
    left.disturbances.append(row)


def lose_unacknowledged(left: Left) -> None:
    """Lose a request that was never acknowledged."""
    lose_request(left)
    left.submitted[2]["acknowledged"] = False


@pytest.mark.parametrize(
    "allowed",
    [
        repeat_for_a_kill,
        repeat_after_silence,
        collapse,
        try_again_after_failure,
        disown_answer,
        lose_unacknowledged,
        keep_poison,
        jump,
    ],
)
def test_what_a_kill_may_cause_is_no_defect(allowed: Callable[[Left], None], tmp_path: Path) -> None:
    """Repeats that nobody notices, and work that nobody accepted, are allowed."""
    left = Left()
    allowed(left)
    assert defects(left, tmp_path) == set()


def test_what_collapsed_is_counted(tmp_path: Path) -> None:
    """Repeats are allowed, and shown."""
    left = Left()
    collapse(left)
    totals = judge(read(left.write(tmp_path))).totals
    assert (totals["results_collapsed"], totals["jobs_collapsed"]) == (1, 1)


def test_the_exit_code_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 for nothing wrong, 1 for a defect, 2 for a folder that no run left."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    left = Left()
    left.write(good)
    lose_result(left)
    left.write(bad)
    codes = [main([str(good)]), main([str(bad)]), main([str(tmp_path / "none")])]
    assert codes == [0, 1, 2]
    assert "DEFECT lost: 1" in capsys.readouterr().out
