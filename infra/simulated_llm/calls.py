"""The log of calls, one JSON line each: what a kill test holds the workers to.

A call is written once, when it ends; status 0 means that nobody got the answer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import orjson

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

ABORTED = 0
"""Status of a call whose client went away, gave up, or that ended with the server."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as the provider saw it; times are seconds since the epoch."""

    time: float
    ended: float
    provider: str
    model: str
    idempotency_key: str
    """As sent, else empty."""
    request_id: str
    status: int


class CallLog:
    """An append-only file of calls. Each line is one write, so no kill can tear or lose it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __enter__(self) -> Self:
        """Return the open log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the log."""
        self.close()

    def append(self, record: CallRecord) -> None:
        """Write *record*; it has reached the kernel on return.

        Raises:
            OSError: the disk is full or the file cannot be written.
        """
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"the log of calls took {written} of {len(line)} bytes: is the disk full?")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
