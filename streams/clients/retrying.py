"""Ask again within one process: a classifier, or a provider that could not even be connected to.

The one place where waits of less than seconds are spent; longer ones are the retry tiers'.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import stamina

from agents.errors import NotSent, Unavailable
from agents.ports import Complete, HttpCall, HttpReply, Infer, Inference

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0
_LEAST_LEFT_S = 0.05


class RetryingInfer:
    """An `Infer` over another one: an unavailable classifier is asked again, with backoff and jitter."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Return the answer, or raise `Unavailable` once *timeout_s* seconds are used up."""
        until = time.monotonic() + timeout_s
        attempts = stamina.retry_context(
            on=Unavailable,
            attempts=None,
            timeout=max(timeout_s - _LEAST_LEFT_S, _LEAST_LEFT_S),
            wait_initial=_FIRST_WAIT_S,
            wait_max=_LONGEST_WAIT_S,
        )
        async for attempt in attempts:
            with attempt:
                return await self._infer(classifier, texts, max(until - time.monotonic(), _LEAST_LEFT_S))
        raise Unavailable(f"classifier {classifier!r} was not asked: no time was left")


class RetryingComplete:
    """A `Complete` over another one: a call that was not sent is tried again, with backoff and jitter.

    All tries together take at most *budget_s* seconds and the call's own timeout, and only the last may
    have reached the provider: in the ledger they are one call.
    """

    def __init__(self, complete: Complete, budget_s: float) -> None:
        self._complete = complete
        self._budget_s = budget_s

    async def __call__(self, provider: str, call: HttpCall) -> HttpReply:
        """Return the reply; raises as the other does, `NotSent` once the budget is used up."""
        until = time.monotonic() + call.timeout_s
        attempts = stamina.retry_context(
            on=NotSent,
            attempts=None,
            timeout=min(self._budget_s, call.timeout_s),
            wait_initial=_FIRST_WAIT_S,
            wait_max=_LONGEST_WAIT_S,
        )
        async for attempt in attempts:
            with attempt:
                left = max(until - time.monotonic(), _LEAST_LEFT_S)
                return await self._complete(provider, replace(call, timeout_s=left))
        raise NotSent(f"{provider} was not asked: no time was left")
