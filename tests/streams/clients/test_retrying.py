"""Inference is asked again while its budget lasts, and not longer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from agents.errors import CallTimeout, NotSent, Unavailable
from agents.ports import HttpCall, HttpReply, Inference
from streams.clients.retrying import RetryingComplete, RetryingInfer


class Flaky:
    """A classifier that is down for the first *failures* calls; it notes the time each was given."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.budgets: list[float] = []

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Answer, or fail."""
        self.budgets.append(timeout_s)
        if len(self.budgets) <= self.failures:
            raise Unavailable(f"{classifier} is down")
        return Inference(np.ones((len(texts), 2), np.float32), "1")


async def test_a_classifier_that_comes_back_within_the_budget_answers() -> None:
    """Two failures cost waiting, not the signal; each call gets only the time that is left."""
    flaky = Flaky(2)

    answer = await RetryingInfer(flaky)("encoder", ["a"], 10.0)

    assert answer.vectors.shape == (1, 2)
    assert len(flaky.budgets) == 3
    assert flaky.budgets == sorted(flaky.budgets, reverse=True)


async def test_a_classifier_that_stays_down_fails_when_the_budget_is_used_up() -> None:
    """The error comes at about the end of the budget, neither at once nor much later."""
    began = time.monotonic()

    with pytest.raises(Unavailable, match="encoder is down"):
        await RetryingInfer(Flaky(1000))("encoder", ["a"], 1.0)

    assert 0.3 < time.monotonic() - began < 30.0


class Away:
    """A provider that raises each of *errors* in turn, then answers; it notes what it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[HttpCall] = []

    async def __call__(self, provider: str, call: HttpCall) -> HttpReply:
        """Fail as told, or answer."""
        del provider
        self.asked.append(call)
        if self.errors:
            raise self.errors.pop(0)
        return HttpReply(200, {}, b"{}", 0.0, float("nan"))


ASKED = HttpCall("/p", b"{}", {"idempotency-key": "k"}, 30.0)


async def test_a_call_that_was_not_sent_is_tried_again_under_its_key() -> None:
    """A provider that is just starting costs a wait, not an attempt; the call's timeout covers all tries."""
    away = Away(NotSent("starting"), NotSent("starting"))

    reply = await RetryingComplete(away, 20.0)("p", ASKED)

    assert reply.status == 200
    assert [call.headers for call in away.asked] == [ASKED.headers] * 3
    assert [call.timeout_s for call in away.asked] == sorted((c.timeout_s for c in away.asked), reverse=True)


@pytest.mark.parametrize("error", [CallTimeout("silence"), Unavailable("broken")])
async def test_a_call_that_may_have_been_sent_is_not_tried_again(error: Unavailable) -> None:
    """Whether it is made again is the ledger's business."""
    away = Away(error)

    with pytest.raises(type(error)):
        await RetryingComplete(away, 20.0)("p", ASKED)
    assert len(away.asked) == 1


async def test_a_provider_that_stays_away_is_given_up_within_the_budget() -> None:
    """The last refusal is what the caller hears."""
    away = Away(*[NotSent("away")] * 1000)

    with pytest.raises(NotSent):
        await RetryingComplete(away, 0.5)("p", ASKED)
    assert len(away.asked) >= 2
