"""A token bucket: how many calls may start now. No clock: the caller says what time it is."""

from __future__ import annotations


class Bucket:
    """*rps* calls a second and at most *burst* at once; starts full."""

    def __init__(self, rps: float, burst: int) -> None:
        self._rps = rps
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated: float | None = None

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there will be one."""
        elapsed = 0.0 if self._updated is None else max(now - self._updated, 0.0)
        self._tokens = min(self._tokens + elapsed * self._rps, self._burst)
        self._updated = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rps
