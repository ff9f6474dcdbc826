"""The simulated providers without a socket, for runs in one process and for tests."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from infra.simulated_llm import dialect
from infra.simulated_llm.calls import ABORTED, CallLog
from infra.simulated_llm.model import HANG
from infra.simulated_llm.simulator import Exchange, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.simulated_llm.profile import Profile

R_co = TypeVar("R_co", covariant=True)


class Call(Protocol):
    """What a caller hands over; the project's ``HttpCall`` is one."""

    @property
    def body(self) -> bytes:
        """Return the body as it would be sent."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; any case."""
        ...

    @property
    def timeout_s(self) -> float:
        """Return the seconds after which the caller gives up."""
        ...


class ReplyOf(Protocol[R_co]):
    """What builds the caller's own kind of reply; the project's ``HttpReply`` is one."""

    def __call__(
        self, *, status: int, headers: Mapping[str, str], body: bytes, elapsed_s: float, ttft_s: float
    ) -> R_co:
        """Return the reply."""
        ...


class InProcess(Generic[R_co]):
    """An async callable (provider, call) -> reply over a `Simulator`.

    *reply* and *timed_out* are the caller's own reply class and timeout error, since this
    package knows neither. *pace* stretches the waiting: 1 is the profile's speed, 0 does not wait
    at all. The reply's ``elapsed_s`` is the drawn latency, so that runs repeat to the digit.
    Streams are not offered: ``"stream": true`` is answered whole.
    """

    def __init__(  # noqa: PLR0913 - all but two have defaults
        self,
        profile: Profile,
        seed: int,
        *,
        reply: ReplyOf[R_co],
        timed_out: Callable[[str], Exception] = TimeoutError,
        calls: CallLog | None = None,
        pace: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.simulator = Simulator(profile, seed)
        self._reply = reply
        self._timed_out = timed_out
        self._calls = calls
        self._pace = pace
        self._clock = clock

    async def __call__(self, provider: str, call: Call) -> R_co:
        """Return the reply after the drawn latency.

        Raises:
            Exception: the error that *timed_out* makes, after the call's timeout.
        """
        started = self._clock()
        names = {name.lower(): value for name, value in call.headers.items()}
        exchange = self.simulator.begin(provider, call.body, names, started)
        outcome = exchange.outcome
        late = outcome.status == HANG or outcome.latency_s > call.timeout_s
        status = ABORTED
        try:
            await asyncio.sleep((call.timeout_s if late else outcome.latency_s) * self._pace)
            status = ABORTED if late else outcome.status
        finally:
            self._log(exchange, started, status)
        if late:
            raise self._timed_out(f"{provider}: no answer within {call.timeout_s:g} s (simulated)")
        return self._reply(
            status=status,
            headers=dialect.headers(exchange),
            body=dialect.body(exchange),
            elapsed_s=outcome.latency_s,
            ttft_s=float("nan"),
        )

    def _log(self, exchange: Exchange, started: float, status: int) -> None:
        if self._calls is not None:
            self._calls.append(exchange.record(started, self._clock(), status))
