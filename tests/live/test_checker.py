"""The checker of kill runs sees what it is there to see: each planted defect, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.completion import Result
from schemas.decision import PlanStep
from schemas.envelope import Envelope
from schemas.identity import Origin, job_key
from schemas.job import AttemptEnded, Job
from schemas.logdir import LogWriter
from schemas.request import Request
from schemas.sealed import Body
from schemas.topics import REQUESTS, RESULTS, attempts_topic, jobs_topic
from tests.live.checker import judge, main
from tests.live.checker_evidence import read

COUNT = 5
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


def an_end(number: int, outcome: str) -> AttemptEnded:
    """Return the end of a request's first attempt."""
    return AttemptEnded(
        request_id(number), Origin(0, number), 0, 0, 0, "north", "m", "w", 0, outcome, 200, ""
    )


@dataclass
class Left:
    """What a run left, before it is written: every request answered once, one after the other."""

    submitted: list[dict[str, Any]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    records: list[tuple[str, Any, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fill it with a run without a defect."""
        for number in range(COUNT):
            at = START_S + number * 10
            row = {"request_id": request_id(number).hex(), "run": "r", "custom_id": f"c{number}"}
            self.submitted.append({**row, "acknowledged": True})
            self.records += [
                (REQUESTS, a_request(number), at),
                (jobs_topic("north"), a_job(number), at),
                (RESULTS, a_result(number), at + 1.1),
                (attempts_topic("north"), an_end(number, "ok"), at + 1.2),
            ]
            self.call(number, at)

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

    def write(self, out: Path) -> Path:
        """Write it all to *out*."""
        for name, rows in (
            ("submitted", self.submitted),
            ("kills", self.kills),
            ("provider_calls", self.calls),
        ):
            (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        codec = Codec()
        with LogWriter(out / "log", "cluster", "signalbox") as writer:
            for offset, (topic, record, at) in enumerate(self.records):
                value = codec.encode(record)
                writer.append(Envelope(topic, 0, offset, int(at * 1000), record.request_id, value))
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
    left.without(REQUESTS, 2)
    left.without(RESULTS, 2)
    left.without(jobs_topic("north"), 2)
    left.calls = [c for c in left.calls if c["request_id"] != request_id(2).hex()]


def answer_twice(left: Left) -> None:
    """Answer one request under two keys."""
    left.call(2, START_S + 100, attempt=1)


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
    left.records.append((jobs_topic("north"), a_job(2, "other"), START_S + 100))


def invent_result(left: Left) -> None:
    """Answer a request that nobody made."""
    left.records.append((RESULTS, a_result(99), START_S + 100))


def call_without_key(left: Left) -> None:
    """Call without an idempotency key."""
    left.calls[2]["idempotency_key"] = ""


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
    left.records.append((attempts_topic("north"), an_end(2, "unanswered"), START_S + 26))
    left.call(2, START_S + 28)


def collapse(left: Left) -> None:
    """Write a result and a job a second time."""
    left.records += [
        (RESULTS, a_result(2), START_S + 100),
        (jobs_topic("north"), a_job(2), START_S + 100),
    ]


def try_again_after_failure(left: Left) -> None:
    """Call again, under the next key, after an error."""
    left.calls[2]["status"] = 503
    left.call(2, START_S + 100, attempt=1)
    left.records.append((jobs_topic("north"), a_job(2, attempt=1), START_S + 100))


def disown_answer(left: Left) -> None:
    """Refuse a key that was answered while its worker died, so that the next attempt has to answer."""
    left.kill(START_S + 21.05)
    left.call(2, START_S + 28, status=429)
    left.call(2, START_S + 100, attempt=1)


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
