"""Dispatch: the first decision in the log becomes a job, or the Result that ends the request."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.dispatch import DEAD_LETTERED, FirstDecisions, dispatch
from agents.errors import InvalidRecord
from schemas.completion import Result
from schemas.identity import Origin
from schemas.job import Job
from tests.agents.samples import NOW, decision, request

REQUEST = request()
HORIZON = 1000
ORIGIN = Origin(3, 17)


def noted(*copies: tuple[int, int], limit: int = 10) -> FirstDecisions:
    """Return what is known after a decision of one request was read at each (offset, timestamp)."""
    first = FirstDecisions(limit, HORIZON)
    for offset, timestamp in copies:
        first.note(decision(REQUEST, ORIGIN), offset, timestamp)
    return first


def firsts(first: FirstDecisions, offsets: Iterable[int]) -> list[int]:
    """Return which of *offsets* is the decision."""
    return [offset for offset in offsets if first.is_first(decision(REQUEST, ORIGIN), offset)]


def test_the_first_in_the_log_is_the_decision() -> None:
    """Later copies within the horizon collapse, and reading them all again changes nothing."""
    assert firsts(noted((5, 0), (9, 10), (12, HORIZON)), (5, 9, 12)) == [5]
    assert firsts(noted((5, 0), (9, 10), (5, 0), (9, 10)), (5, 9)) == [5]


def test_behind_the_horizon_a_copy_is_a_new_request() -> None:
    """A copy more than the horizon after the first is decided anew."""
    assert firsts(noted((5, 0), (9, HORIZON + 1)), (9,)) == [9]


def test_a_dead_lettered_decision_does_not_count() -> None:
    """So a request that is redriven can still be decided."""
    first = FirstDecisions(10, HORIZON)
    first.note(decision(REQUEST, ORIGIN, outcome="failed", failure=DEAD_LETTERED), 5, 0)
    first.note(decision(REQUEST, ORIGIN), 9, 1)

    assert firsts(first, (9,)) == [9]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 400)), max_size=60), st.integers(1, 4))
def test_memory_is_bounded_and_forgets_the_oldest(steps: list[tuple[int, int]], limit: int) -> None:
    """Never more than the limit is kept, and the one noted last is always known."""
    first, now = FirstDecisions(limit, HORIZON), 0
    for offset, (who, later) in enumerate(steps):
        now += later
        made = replace(decision(REQUEST, ORIGIN), request_id=bytes([who]) * 16)
        first.note(made, offset, now)

        assert len(first) <= max(limit, 2)
        assert first.is_first(made, offset) or any(first.is_first(made, o) for o in range(offset))


def test_a_routed_decision_becomes_a_job() -> None:
    """The job has the plan's first step, the sealed body and everything that the worker must obey."""
    job = dispatch(REQUEST, decision(REQUEST, ORIGIN), NOW)

    assert isinstance(job, Job)
    assert (job.provider, job.model, job.plan_index, job.tries, job.attempt) == ("north", "small", 0, 2, 0)
    assert (job.origin, job.body, job.deadline) == (ORIGIN, REQUEST.body, REQUEST.deadline)
    assert (job.tenant, job.run, job.custom_id, job.line) == ("acme", "run", "line-1", 1)
    assert job.key == f"{REQUEST.request_id.hex()}-0-0-0"


@pytest.mark.parametrize(
    ("failure", "status"),
    [("model_not_found", 404), ("no_decision", 422), ("signal_unknown:keyword:urgent", 503), ("other", 503)],
)
def test_a_failed_decision_becomes_the_result(failure: str, status: int) -> None:
    """Without a model to ask, the request ends with a status and the decision's own code."""
    result = dispatch(REQUEST, decision(REQUEST, ORIGIN, outcome="failed", failure=failure, plan=()), NOW)

    assert isinstance(result, Result)
    assert (result.status, result.error_code, result.finished_at) == (status, failure, NOW)
    assert (result.origin, result.custom_id, result.answer) == (ORIGIN, "line-1", None)
    assert result.error_message


def test_a_dead_lettered_decision_means_nothing_yet() -> None:
    """Neither a job nor a Result: a redrive can still succeed."""
    made = decision(REQUEST, ORIGIN, outcome="failed", failure=DEAD_LETTERED, plan=())

    assert dispatch(REQUEST, made, NOW) is None


def test_a_decision_of_another_request_is_refused() -> None:
    """A decision whose origin points at another request is never acted on."""
    other = replace(REQUEST, request_id=bytes(16))

    with pytest.raises(InvalidRecord):
        dispatch(other, decision(REQUEST, ORIGIN), NOW)
