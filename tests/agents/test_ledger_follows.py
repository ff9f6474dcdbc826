"""The ledger takes a further attempt for the end of the one before it."""

from dataclasses import replace

from agents.work import RUN, SKIP, Ledger, started
from tests.live.test_checker import a_job

NOW = 1_700_000_000_000


def test_an_attempt_whose_successor_exists_is_not_called_again() -> None:
    """A worker that died between writing the next attempt and the end of this one leaves an open start."""
    ledger, job = Ledger(), a_job(1)
    ledger.note(started(job, "w", 0, NOW))
    ledger.follows(a_job(1, attempt=1))
    assert ledger.judge(job, NOW + job.call_timeout_ms * 10) == SKIP


def test_other_jobs_are_called() -> None:
    """A further attempt says nothing of itself, nor of another request."""
    ledger, other, following = Ledger(), a_job(2), a_job(1, attempt=1)
    ledger.follows(following)
    assert [ledger.judge(j, NOW) for j in (other, following, replace(other, branch=1))] == [RUN] * 3
