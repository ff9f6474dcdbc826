"""Everything that we write goes out here: encoded, with its headers, to its partition."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence

from agents.topology import Emit
from schemas.codec import Codec
from schemas.dead_letter import DeadLetter
from schemas.identity import ID_BYTES
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.topics import DEAD_LETTERS
from streams.log import TP, Log, Placed

_LONGEST_KEY = 256
_JOB_LIKE = (Job, AttemptStarted, AttemptEnded)


class Outbox:
    """Encodes and sends; headers are traceparent, policy_hash and CloudEvents' required four.

    The trace id is the request id, so that logs, metrics and traces of a request meet.
    """

    def __init__(self, log: Log, codec: Codec, source: str) -> None:
        self._log = log
        self._codec = codec
        self._source = f"/signalbox/{source}".encode()
        self.sent: Callable[[str, int], None] = lambda _topic, _size: None

    async def send(self, emit: Emit) -> Awaitable[Placed]:
        """Hand *emit* to the log; the awaitable ends with its acknowledgement."""
        value, headers = self.pack(emit)
        return await self.send_packed((emit.topic, emit.partition), emit.key, value, headers)

    def pack(self, emit: Emit) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Return value and headers of *emit* as they are sent."""
        return self._codec.encode(emit.record), self._headers(emit)

    async def send_packed(
        self, place: TP, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Awaitable[Placed]:
        """Hand a record over that is encoded already, or that is somebody else's."""
        self.sent(place[0], len(value or b""))
        return await self._log.send(place, key, value, headers)

    async def send_dead_letter(self, letter: DeadLetter) -> Placed:
        """Write *letter* and wait until the log has it; its partition is that of the original."""
        value = self._codec.encode(letter)
        partitions = await self._log.partitions(DEAD_LETTERS)
        place = (DEAD_LETTERS, letter.partition % max(partitions, 1))
        key = letter.key
        if key is not None and len(key) > _LONGEST_KEY:
            # The letter holds the key itself; twice a large one might not fit into the topic.
            key = hashlib.sha256(key).digest()
        emit = Emit(DEAD_LETTERS, place[1], letter.request_id or key or b"", letter)
        return await (await self._log.send(place, key, value, self._headers(emit)))

    def _headers(self, emit: Emit) -> list[tuple[str, bytes]]:
        record = emit.record
        kind = type(record).__name__
        name = record.key if isinstance(record, _JOB_LIKE) else emit.key.hex()
        policy = getattr(record, "policy_hash", None)
        if policy is None and hasattr(record, "core"):
            policy = record.core.policy_hash
        headers = [
            ("ce_id", f"{kind}/{emit.topic}/{name}".encode()),
            ("ce_type", f"signalbox.{kind}".encode()),
            ("ce_source", self._source),
            ("ce_specversion", b"1.0"),
        ]
        if len(emit.key) == ID_BYTES:
            trace = emit.key.hex()
            headers.append(("traceparent", f"00-{trace}-{trace[:16]}-01".encode()))
        if policy:
            headers.append(("policy_hash", policy.encode()))
        return headers
