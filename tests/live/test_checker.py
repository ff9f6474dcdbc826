"""The checker of kill runs sees what it is there to see: each planted defect, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.topics import DECISIONS, REQUESTS, RESULTS
from tests.live.checker import judge, main
from tests.live.checker_evidence import read
from tests.live.fabricated_run import (
    JOBS,
    LEDGER,
    SIGNALS,
    START_S,
    Left,
    a_decision,
    a_job,
    a_result,
    a_signal,
    a_start,
    an_end,
)


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
