"""What a log holds of roles that observed in shadow only, by request, in a file of this process alone.

No decision names such a set, and it may come long after the decision, so that a whole partition's are joined:
more of them than memory has room for. SQLite keeps the newest pages in memory and the rest in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from replay.view import LogView
from schemas.codec import Codec, UndecodableError
from schemas.signal import SignalSet
from schemas.topics import signals_topic

_CACHE_KIB = 16 * 1024
"""Of pages that stay in memory."""
_TABLE = """
CREATE TABLE seen (origin INTEGER, request BLOB, topic INTEGER, at INTEGER, value BLOB,
PRIMARY KEY (origin, request, topic)) WITHOUT ROWID
"""
_INSERT = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?)"
_SELECT = "SELECT at, value FROM seen WHERE origin = ? AND request = ? ORDER BY topic"
_Row = tuple[int, bytes, int, int, bytes]


class ShadowStore:
    """The sets of one *partition* of *view* that were observed in shadow only; a context manager.

    It is empty, and no file, where no policy of the log asks for such signals. Raises `OSError` where the
    temporary folder has no room for them.
    """

    def __init__(self, view: LogView, codec: Codec, partition: int) -> None:
        self._codec = codec
        self._db: sqlite3.Connection | None = None
        if any("shadow_signals" in text for text in view.policies().values()):
            self._db = _database()
            try:
                self._db.execute("BEGIN")
                self._db.executemany(_INSERT, self._rows(view, partition))
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._db.close()
                raise OSError(
                    f"cannot keep what was observed in shadow in a temporary file: {error}"
                ) from None

    def _rows(self, view: LogView, partition: int) -> Iterable[_Row]:
        topics = [t for t, n in view.topics().items() if t.startswith(signals_topic("")) and partition < n]
        for number, topic in enumerate(topics):
            for envelope in view.read(topic, partition):
                found = self._decoded(envelope.value)
                if found is not None and found.only_shadow:
                    yield (
                        found.origin.offset,
                        found.request_id,
                        number,
                        envelope.offset,
                        envelope.value or b"",
                    )

    def _decoded(self, value: bytes | None) -> SignalSet | None:
        try:
            found: SignalSet = self._codec.decode_as(SignalSet, value)
        except UndecodableError:
            return None
        return found

    def about(self, origin: int, request_id: bytes) -> tuple[tuple[int, SignalSet], ...]:
        """Return the first set of each role about that request, with its offset, by topic."""
        if self._db is None:
            return ()
        rows = self._db.execute(_SELECT, (origin, request_id))
        return tuple((at, self._codec.decode_as(SignalSet, value)) for at, value in rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._db is not None:
            self._db.close()


def _database() -> sqlite3.Connection:
    """Return an empty one, without a name: its file is gone once it is closed."""
    # One thread at a time has it; that may be another one which lets go of it in the end.
    found = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for line in (f"PRAGMA cache_size = -{_CACHE_KIB}", "PRAGMA journal_mode = OFF", _TABLE):
        found.execute(line)
    return found
