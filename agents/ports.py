"""What the agents need of the world, as plain callables and values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Inference:
    """What a classifier answered: `vectors` is (n, dim), `version` names its weights."""

    vectors: NDArray[np.float32]
    version: str


class Infer(Protocol):
    """Run a hosted classifier over texts; raises `agents.errors.Unavailable`."""

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Return one row per text, or raise `Unavailable` within *timeout_s* seconds."""
        ...


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A call that the shell should make to a provider; *path* is below its base URL."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What came back; header names are lower-case, *ttft_s* is NaN unless streamed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_s: float
    ttft_s: float


Complete = Callable[[str, HttpCall], Awaitable[HttpReply]]
"""Call a provider by name; raises `Unavailable` (no connection) or `CallTimeout`."""
