"""Dead letters of the stages of one process: written before anything is acknowledged, and limited.

A stage that fails everything would empty its topic into `dead-letters`. Past its limits it is paused
instead, on `control.events` as an operator would, and what it has in hand waits unacknowledged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import stamina

from agents.errors import RouterError, Unavailable
from agents.step import dead_letter
from schemas.control import Paused
from schemas.envelope import Envelope
from streams.outbox import Outbox
from streams.pauses import STAGE, Pauses, Target, tell
from streams.telemetry import Telemetry

ACTOR = "dead-letter limit"
RECORD_BYTES = 4 * 1024 * 1024
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class LetterLimits:
    """When a stage stops: `consecutive` letters in a row, or a share of `ratio` of its last `sample`.

    0 turns either off. `budget_s` is how long an unwritable letter is tried before the worker gives up.
    """

    consecutive: int = 200
    ratio: float = 0.5
    sample: int = 1000
    budget_s: float = 120.0
    record_bytes: int = RECORD_BYTES


class LetterUnwritable(RouterError):
    """A dead letter could not be written: its record is not acknowledged, and the worker must end."""


class DeadLetters:
    """The way into `dead-letters`; one `Burial` for each stage."""

    def __init__(self, outbox: Outbox, pauses: Pauses, telemetry: Telemetry, limits: LetterLimits) -> None:
        self.outbox = outbox
        self.pauses = pauses
        self.telemetry = telemetry
        self.limits = limits

    def of(self, stage: str, role: str) -> Burial:
        """Return the burial of *stage*, whose role is what gets paused."""
        return Burial(self, stage, role)


class Burial:
    """Buries the records of one stage, and counts how many of its records that were."""

    def __init__(self, letters: DeadLetters, stage: str, role: str) -> None:
        self._letters = letters
        self._stage = stage
        self._role = role
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=max(letters.limits.sample, 1))
        self._bad = 0

    def succeeded(self, count: int) -> None:
        """Note that *count* records were processed."""
        if count:
            self._in_a_row = 0
            for _ in range(min(count, self._letters.limits.sample)):
                self._count(bad=False)

    async def bury(self, envelope: Envelope, error: BaseException, attempts: int = 1) -> None:
        """Write the dead letter of *envelope*; returns once the log has it.

        Waits while the stage is past its limits, until an operator resumes it. Raises
        `LetterUnwritable` when the log does not take the letter.
        """
        await self._within_limits()
        letters = self._letters
        now = letters.telemetry.clock() // 1000
        letter = dead_letter(self._stage, envelope, error, now=now, attempts=attempts)
        place = f"{envelope.topic}/{envelope.partition}/{envelope.offset}"
        try:
            async for attempt in stamina.retry_context(
                on=Unavailable,
                attempts=None,
                timeout=letters.limits.budget_s,
                wait_initial=_FIRST_WAIT_S,
                wait_max=_LONGEST_WAIT_S,
            ):
                with attempt:
                    await letters.outbox.send_dead_letter(letter)
        except Unavailable as failure:
            raise LetterUnwritable(
                f"the dead letter of {place} could not be written within {letters.limits.budget_s:g} s "
                f"({failure}); the record is not acknowledged. See that topic dead-letters exists and takes "
                "records somewhat larger than the others, then start the worker again"
            ) from None
        self._in_a_row += 1
        self._count(bad=True)
        letters.telemetry.dead_lettered(self._stage, envelope, error)

    def _count(self, *, bad: bool) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._bad -= self._recent[0]
        self._recent.append(bad)
        self._bad += bad

    def _exceeded(self) -> str:
        limits = self._letters.limits
        if limits.consecutive and self._in_a_row >= limits.consecutive:
            return f"{self._in_a_row} records in a row became dead letters"
        full = len(self._recent) == limits.sample
        if limits.ratio and full and self._bad >= limits.ratio * limits.sample:
            return f"{self._bad} of the last {limits.sample} records became dead letters"
        return ""

    async def _within_limits(self) -> None:
        reason = self._exceeded()
        if not reason:
            return
        letters = self._letters
        target = Target(STAGE, self._role)
        if letters.pauses.of(target) is None:
            now = letters.telemetry.clock() // 1000
            paused = Paused(target.scope, target.name, ACTOR, reason, now)
            letters.pauses.hold(paused)
            letters.telemetry.stopped(self._stage, self._role, reason)
            try:
                await tell(letters.outbox, paused)
            except Unavailable as failure:
                letters.telemetry.fatal(self._stage, failure)  # unrecorded, a restart would go on burying
        while letters.pauses.of(target) is not None:
            await letters.pauses.moved()
        letters.telemetry.restarted(self._stage)
        self._in_a_row = self._bad = 0
        self._recent.clear()
