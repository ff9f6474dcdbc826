"""A provider worker's judgement: what to do about a job, and what an answer causes."""

import math
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.failures import wait_ms
from agents.ledger import GRACE_MS, RUN, Ledger, Verdict, ended, started
from agents.ports import HttpCall, HttpReply
from agents.providers import Outcome, ProviderConfig, Reply
from agents.signals import NAN
from agents.work import Conclusion, Unanswered, conclude, expired, job_after
from schemas.completion import Completion, Result
from schemas.job import Job
from tests.agents.samples import NOW, job, policy

UNDER = policy()
LAST = job(plan_index=1, provider="south", model="large", attempt=3, tries=1)


class Scripted(ProviderConfig):
    """A dialect that reads every reply as it is told."""

    type: Literal["scripted"] = "scripted"
    outcome: Outcome = "ok"
    retry_after_s: float = NAN

    def write(
        self, body: bytes, model: str, *, idempotency_key: str, request_id: str, timeout_s: float
    ) -> HttpCall:
        """Return an empty call."""
        raise NotImplementedError

    def read(self, reply: HttpReply) -> Reply:  # noqa: ARG002 - the script says all
        """Return the scripted meaning."""
        code = "" if self.outcome == "ok" else "scripted_code"
        return Reply(self.outcome, "small-2-0613", "stop", 1000, 500, code, self.retry_after_s)


def concluded(of: Job, outcome: Outcome, status: int, retry_after_s: float = NAN) -> Conclusion:
    """Return what a reply with *status* that means *outcome* causes."""
    dialect = Scripted.model_construct(type="scripted", outcome=outcome, retry_after_s=retry_after_s)
    reply = HttpReply(status, {}, b'{"answer": 1}', 0.25, NAN)
    return conclude(of, reply, UNDER, dialect, "w1", NOW)


def next_job(conclusion: Conclusion) -> Job:
    """Return the one job that *conclusion* emits."""
    assert [type(record) for record in conclusion.emits] in ([], [Completion])
    assert conclusion.job is not None
    assert conclusion.ended.following is not None
    assert conclusion.job == job_after(conclusion.job, conclusion.ended.following)
    return conclusion.job


def paused_ms(conclusion: Conclusion) -> int:
    """Return for how long the lane pauses."""
    return max(conclusion.ended.lane_until - NOW, 0)


def result(conclusion: Conclusion) -> Result:
    """Return the one Result that *conclusion* emits."""
    (found,) = [record for record in conclusion.emits if isinstance(record, Result)]
    return found


def test_an_unknown_job_runs() -> None:
    """A job of which the ledger says nothing runs, unless it must not start yet."""
    assert Ledger().judge(job(), NOW) == RUN
    assert Ledger().judge(job(not_before=NOW + 5), NOW) == Verdict("wait", NOW + 5)
    assert Ledger().judge(job(not_before=NOW), NOW) == RUN


def test_an_open_start_is_waited_for_until_its_call_times_out() -> None:
    """The lease: whoever started it may still be calling, so nobody calls before the timeout."""
    ledger = Ledger()
    ledger.note(started(job(), "w0", 9, NOW))
    until = NOW + 7000 + GRACE_MS

    assert ledger.judge(job(), NOW + 1) == Verdict("wait", until)
    assert ledger.judge(job(), until) == RUN
    assert ledger.open_until() == until


def test_a_start_counts_from_when_the_log_had_it() -> None:
    """An outage may hold a start back for longer than the call may take, and the call begins after it."""
    ledger = Ledger()
    ledger.note(started(job(), "w0", 9, NOW), NOW + 10_000)

    assert ledger.judge(job(), NOW + 7000 + GRACE_MS) == Verdict("wait", NOW + 17_000 + GRACE_MS)


@pytest.mark.parametrize("outcome", ["ok", "retry", "advance", "error"])
def test_an_ended_job_is_skipped(outcome: str) -> None:
    """What an ended attempt caused is in the log; it is not called again, in whatever order it was noted."""
    ledger = Ledger()
    ledger.note(started(job(), "w0", 9, NOW))
    ledger.note(ended(job(), "w0", NOW + 10, outcome, (200, "")))
    ledger.note(started(job(), "w1", 9, NOW + 20))

    assert ledger.judge(job(), NOW + 30) == Verdict("skip")
    assert ledger.judge(replace(job(), attempt=1), NOW + 30) == RUN


def test_an_unanswered_call_is_made_again_at_once_with_the_same_key() -> None:
    """An attempt that got no answer is closed but not ended."""
    ledger = Ledger()
    ledger.note(started(job(), "w1", 9, NOW))
    ledger.note(ended(job(), "w1", NOW + 10, "unanswered", (0, "timeout")))

    assert ledger.judge(job(), NOW + 10) == RUN
    assert ledger.open_until() == 0


def test_the_ledger_is_bounded() -> None:
    """Only the latest ended attempts are remembered; those that are open all are."""
    ledger = Ledger(limit=3)
    for attempt in range(10):
        ledger.note(started(job(attempt=attempt), "w", 0, NOW))
        ledger.note(ended(job(attempt=attempt), "w", NOW, "ok", (200, "")))

    assert [ledger.judge(job(attempt=a), NOW).action for a in (6, 7, 9)] == ["run", "skip", "skip"]
    assert len(ledger._ended) == 3
    assert not ledger._open


def test_a_start_says_who_calls_what_for_how_long() -> None:
    """The entry before the call carries the key, the worker and the timeout."""
    entry = started(job(attempt=2), "w1", 41, NOW)

    assert entry.key == job(attempt=2).key
    assert (entry.worker, entry.started_at, entry.call_timeout_ms, entry.job_offset) == ("w1", NOW, 7000, 41)


def test_an_answer_becomes_a_completion_and_the_result() -> None:
    """Usage is priced by the policy, the answer is sealed into both, and the attempt ends ok."""
    conclusion = concluded(job(), "ok", 200)
    completion, final = conclusion.emits

    assert isinstance(completion, Completion)
    assert isinstance(final, Result)
    assert completion.cost_usd == final.cost_usd == 1000 / 1e6 + 500 * 2 / 1e6
    assert (completion.executed_model, completion.finish_reason) == ("small-2-0613", "stop")
    assert completion.answer == final.answer
    assert (completion.latency_ms, math.isnan(completion.ttft_ms)) == (250.0, True)
    assert (final.status, final.error_code, final.custom_id) == (200, "", "line-1")
    assert (conclusion.ended.outcome, conclusion.ended.status) == ("ok", 200)
    assert conclusion.ended.key == job().key


def test_a_refusal_ends_the_request_with_the_providers_answer() -> None:
    """A 400 that no other model would take ends as an error line that carries what the provider said."""
    conclusion = concluded(job(), "reject", 400)
    final = result(conclusion)

    assert (final.status, final.error_code, final.cost_usd) == (400, "scripted_code", 0.0)
    assert final.answer is not None
    assert [type(e).__name__ for e in conclusion.emits] == ["Completion", "Result"]
    assert conclusion.ended.outcome == "error"


def test_a_server_error_is_tried_again_with_a_new_key() -> None:
    """While tries are left the same model is asked again, later, under a new key."""
    conclusion = concluded(job(), "retry", 500)
    again = next_job(conclusion)

    assert (again.model, again.attempt, again.tries, again.plan_index) == ("small", 1, 1, 0)
    assert again.key != job().key
    assert NOW + 125 <= again.not_before <= NOW + 375
    assert (conclusion.ended.outcome, conclusion.ended.status, paused_ms(conclusion)) == ("retry", 500, 0)


@pytest.mark.parametrize(("outcome", "tries"), [("retry", 1), ("degrade", 2)])
def test_a_model_that_cannot_answer_advances_the_plan(outcome: Outcome, tries: int) -> None:
    """Without tries left, or where another model might do, the plan's next step takes over at once."""
    conclusion = concluded(job(tries=tries), outcome, 500)
    following = next_job(conclusion)

    assert (following.provider, following.model, following.plan_index) == ("south", "large", 1)
    assert (following.tries, following.attempt, following.not_before) == (2, 1, 0)
    assert following.key != job().key
    assert conclusion.ended.outcome == "advance"


@pytest.mark.parametrize(
    ("outcome", "status", "shown"), [("retry", 503, 503), ("degrade", 413, 413), ("retry", 200, 502)]
)
def test_an_exhausted_plan_ends_the_request(outcome: Outcome, status: int, shown: int) -> None:
    """After the last step the request ends with the last failure; an unusable 200 shows as 502."""
    conclusion = concluded(LAST, outcome, status)
    final = result(conclusion)

    assert (final.status, final.error_code) == (shown, "scripted_code")
    assert "small, large" in final.error_message
    assert (conclusion.ended.outcome, conclusion.ended.status) == ("error", status)


def test_a_rate_limit_consumes_no_try_and_pauses_the_lane() -> None:
    """Retry-After holds the job and its lane, on the last try too."""
    conclusion = concluded(job(tries=1), "retry", 429, 30.0)
    again = next_job(conclusion)

    assert (again.tries, again.attempt, again.plan_index) == (1, 1, 0)
    assert again.not_before == NOW + 30_000
    assert paused_ms(conclusion) == 30_000
    assert (conclusion.ended.outcome, conclusion.ended.status) == ("retry", 429)


def test_a_rate_limit_that_does_not_say_how_long_backs_off() -> None:
    """Without Retry-After the wait grows with the attempts, and there always is one."""
    assert 125 <= paused_ms(concluded(job(), "retry", 429)) <= 375
    assert paused_ms(concluded(job(), "retry", 429, 0.0)) == 1


def test_an_exhausted_quota_is_no_rate_limit() -> None:
    """A 429 that waiting does not help, by the dialect's reading, goes elsewhere and pauses nothing."""
    conclusion = concluded(job(), "degrade", 429, 30.0)

    assert next_job(conclusion).model == "large"
    assert paused_ms(conclusion) == 0


@pytest.mark.parametrize("seconds", [1e9, math.inf])
def test_no_wait_outlasts_the_request(seconds: float) -> None:
    """A provider that asks for years pauses its lane for an hour, the job to just after its deadline."""
    conclusion = concluded(job(), "retry", 429, seconds)

    assert paused_ms(conclusion) == 3_600_000
    assert next_job(conclusion).not_before == job().deadline + 1


@pytest.mark.parametrize(("code", "status"), [("timeout", 504), ("unavailable", 502)])
def test_a_call_that_was_never_answered_advances_the_plan(code: str, status: int) -> None:
    """Nothing came back: the next model is asked, and without one the error says what happened."""
    conclusion = conclude(job(), Unanswered(code), UNDER, Scripted(), "w1", NOW)
    final = result(conclude(LAST, Unanswered(code), UNDER, Scripted(), "w1", NOW))

    assert next_job(conclusion).model == "large"
    assert (conclusion.ended.outcome, conclusion.ended.status) == ("advance", 0)
    assert (final.status, final.error_code) == (status, f"provider_{code}")


def test_a_job_behind_its_deadline_ends_without_a_call() -> None:
    """The request ends as 504 and the ledger says that nobody was asked."""
    conclusion = expired(job(), "w1", NOW)

    assert (result(conclusion).status, result(conclusion).error_code) == (504, "deadline_exceeded")
    assert (conclusion.ended.outcome, conclusion.ended.status) == ("error", 0)


@given(st.integers(0, 60), st.binary(min_size=16, max_size=16))
def test_backoff_grows_and_stays_bounded(attempt: int, request_id: bytes) -> None:
    """The wait is exponential with a jitter of half, at most 45 s, and the same for the same attempt."""
    waiting = job(attempt=attempt, request_id=request_id)
    base = min(30_000, 250 * 2 ** min(attempt, 10))

    assert base // 2 <= wait_ms(waiting.request_id, waiting.attempt, NAN) <= base * 1.5
    assert wait_ms(waiting.request_id, waiting.attempt, NAN) == wait_ms(
        waiting.request_id, waiting.attempt, NAN
    )


@given(
    st.sampled_from(["ok", "retry", "degrade", "reject"]),
    st.sampled_from([200, 204, 301, 400, 401, 404, 408, 413, 429, 500, 503, 529]),
    st.integers(1, 3),
    st.integers(0, 1),
    st.sampled_from([NAN, 0.0, 3.5, math.inf]),
)
def test_every_answer_either_ends_the_request_or_goes_on(
    outcome: Outcome, status: int, tries: int, index: int, retry_after_s: float
) -> None:
    """Exactly one of a Result or a next job with a new key follows, and the end names the answered status."""
    asked = job(tries=tries, plan_index=index, model=("small", "large")[index])
    conclusion = concluded(asked, outcome, status, retry_after_s)
    endings = [record for record in conclusion.emits if isinstance(record, Result)]
    following = [] if conclusion.job is None else [conclusion.job]

    assert len(endings) + len(following) == 1
    assert all(j.attempt == asked.attempt + 1 and j.not_before <= asked.deadline + 1 for j in following)
    assert all((r.status < 400) == (outcome == "ok" and status < 400) for r in endings)
    assert conclusion.ended.key == asked.key
    assert conclusion.ended.status == status
