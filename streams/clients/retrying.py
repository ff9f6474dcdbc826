"""Ask a classifier again while its time budget lasts: the one place where inference is retried."""

from __future__ import annotations

import time
from collections.abc import Sequence

import stamina

from agents.errors import Unavailable
from agents.ports import Infer, Inference

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
