"""Inference is asked again while its budget lasts, and not longer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from agents.errors import Unavailable
from agents.ports import Inference
from streams.clients.retrying import RetryingInfer


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

    assert 0.3 < time.monotonic() - began < 3.0
