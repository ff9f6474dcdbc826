"""Lanes: a provider's model in a region, which pauses by itself and leaves the others alone.

A lane is free, paused (somebody said until when), open (its circuit broke) or on probation (one
probe is out). A mutable value: no clock, times are ms since the epoch and come in as arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

PROBE_LOOK_MS = 250

Ending = Literal["ok", "failed", "slow", "void"]
"""How a call ended, to its lane; void says nothing of it, such as a rate limit, which pauses it anyway."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One provider x model x region; the region is empty where none is configured."""

    provider: str
    model: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a circuit opens, and for how long (ms).

    Of the last `window` calls, once there are `least`: so many failed, or took longer than `slow_share`
    of their timeout. Each failed probe doubles the time, up to `longest_ms`.
    """

    window: int = 20
    least: int = 10
    error_rate: float = 0.5
    slow_rate: float = 0.8
    slow_share: float = 0.8
    open_ms: int = 5_000
    longest_ms: int = 120_000


@dataclass(slots=True)
class _State:
    paused_until: int = 0
    open_until: int = 0
    open_ms: int = 0
    probing: bool = False
    calls: deque[Ending] = field(default_factory=deque)

    @property
    def broken(self) -> bool:
        return self.open_ms > 0


class Lanes:
    """The lanes that one worker serves, by what it has seen of them; one state for each model."""

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self._states: dict[Lane, _State] = {}

    def pause(self, lane: Lane, until: int) -> None:
        """Let no call of *lane* begin before *until*."""
        state = self._states.setdefault(lane, _State())
        state.paused_until = max(state.paused_until, until)

    def free_at(self, lane: Lane, now: int) -> int:
        """Return when a call may begin, or when to ask again; at most *now* where it may begin now."""
        state = self._states.get(lane)
        if state is None:
            return 0
        probe = now + PROBE_LOOK_MS if state.probing else 0
        return max(state.paused_until, state.open_until, probe)

    def is_open(self, lane: Lane, now: int) -> bool:
        """Tell whether the circuit of *lane* is open: no call is let through but the next probe."""
        state = self._states.get(lane)
        return state is not None and state.broken and (state.probing or now < state.open_until)

    def begin(self, lane: Lane) -> bool:
        """Note that a call of *lane* begins; tell whether it is the probe of a circuit that was open."""
        state = self._states.get(lane)
        if state is None or not state.broken:
            return False
        state.probing = True
        return True

    def end(self, lane: Lane, now: int, how: Ending, *, probe: bool = False) -> None:
        """Note how a call of *lane* ended, as `begin` called it.

        Calls that began before the circuit broke say nothing about whether it may close.
        """
        state = self._states.setdefault(lane, _State())
        if probe:
            self._end_probe(state, now, how)
        elif not state.broken and how != "void":
            state.calls.append(how)
            if len(state.calls) > self._limits.window:
                state.calls.popleft()
            if self._breaks(state.calls):
                self._open(state, now, self._limits.open_ms)

    def _breaks(self, calls: deque[Ending]) -> bool:
        count = len(calls)
        if count < self._limits.least:
            return False
        failed, slow = calls.count("failed"), calls.count("slow")
        return failed >= self._limits.error_rate * count or failed + slow >= self._limits.slow_rate * count

    def _end_probe(self, state: _State, now: int, how: Ending) -> None:
        """Close the circuit, or open it for longer; a void probe is followed by another."""
        state.probing = False
        if how == "ok":
            state.open_ms = state.open_until = 0
            state.calls.clear()
        elif how != "void":
            self._open(state, now, min(state.open_ms * 2, self._limits.longest_ms))

    def _open(self, state: _State, now: int, for_ms: int) -> None:
        state.open_ms, state.open_until = for_ms, now + for_ms
        state.calls.clear()

    def ending(self, *, failed: bool, took_ms: float, timeout_ms: int) -> Ending:
        """Return how a call ended that took *took_ms* of its *timeout_ms*."""
        if failed:
            return "failed"
        return "slow" if took_ms >= self._limits.slow_share * timeout_ms else "ok"

    def any_free(self, lanes: Iterable[Lane], now: int) -> bool:
        """Tell whether a call of any of *lanes* may begin."""
        return any(self.free_at(lane, now) <= now for lane in lanes)

    def states(self, now: int) -> list[tuple[Lane, str]]:
        """Return each lane that is not free with its state: paused, open or probing."""
        found = []
        for lane, state in self._states.items():
            if state.probing:
                found.append((lane, "probing"))
            elif state.broken:
                found.append((lane, "open"))
            elif state.paused_until > now:
                found.append((lane, "paused"))
        return found
