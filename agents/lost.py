"""Requests by id, so that a derived record that cannot be read is missed at once, not at a deadline.

Its key still names the request that it belongs to. No I/O, clock or global state.
"""

from __future__ import annotations

from collections import OrderedDict


class Origins:
    """The origins of the requests of one partition that are not settled, and what they have lost."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._origins: dict[bytes, list[int]] = {}
        self._ids: dict[int, bytes] = {}
        self._lost: OrderedDict[bytes, list[str]] = OrderedDict()

    def note(self, request_id: bytes, origin: int) -> list[str]:
        """Note that *request_id* lies at *origin*; return the inputs whose record of it was unreadable."""
        self._origins.setdefault(request_id, []).append(origin)
        self._ids[origin] = request_id
        return self._lost.pop(request_id, [])

    def settle(self, origin: int) -> None:
        """Forget *origin*."""
        request_id = self._ids.pop(origin, None)
        if request_id is None:
            return
        left = self._origins[request_id]
        left.remove(origin)
        if not left:
            del self._origins[request_id]

    def lose(self, key: bytes | None, source: str) -> int | None:
        """Return the origin that an unreadable record of *source* under *key* belongs to.

        None if no such request was read yet; the loss is then remembered for it, up to a bound.
        """
        if key is None:
            return None
        if key in self._origins:
            return self._origins[key][0]
        self._lost.setdefault(key, []).append(source)
        if len(self._lost) > self._limit:
            self._lost.popitem(last=False)
        return None
