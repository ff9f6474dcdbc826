"""Who a record is about: ids that every process derives alike, and positions in the log.

Ids are the first 128 bits of SHA-256 over length-prefixed parts, so that no two different
tuples of parts share an encoding; the first part is a namespace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from schemas.shape import Id16

__all__ = ["Id16", "Origin", "body_digest", "inbox_request_id", "job_key", "line_request_id", "run_name"]
__all__ += ["custom_request_id", "parse_id", "partition_for"]

ID_BYTES = 16


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The place of a request in `requests`; every record derived from it carries it."""

    partition: int
    offset: int


def _digest(*parts: bytes) -> bytes:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.digest()


def custom_request_id(tenant: str, run: str, custom_id: str) -> bytes:
    """Return the id of the batch line that its caller named *custom_id*."""
    return _digest(b"custom", tenant.encode(), run.encode(), custom_id.encode("utf-8", "surrogatepass"))[:16]


def line_request_id(tenant: str, run: str, line: int) -> bytes:
    """Return the id of the batch line that has no custom id; *line* counts from 1."""
    return _digest(b"line", tenant.encode(), run.encode(), str(line).encode())[:16]


def inbox_request_id(cluster: str, topic: str, partition: int, offset: int) -> bytes:
    """Return the id of a foreign record, the same however often it is delivered."""
    return _digest(b"inbox", cluster.encode(), topic.encode(), b"%d" % partition, b"%d" % offset)[:16]


def keyed_request_id(key_id: bytes, digest: bytes) -> bytes:
    """Return the id of a request with an idempotency key: the same for the same body, else another."""
    return _digest(b"keyed", key_id, digest)[:16]


def idempotency_id(tenant: str, key: str) -> bytes:
    """Return what stands for a tenant's idempotency key, in 16 bytes."""
    return _digest(b"key", tenant.encode(), key.encode("utf-8", "surrogatepass"))[:16]


def body_digest(tenant: str, body: bytes) -> bytes:
    """Return SHA-256 over tenant and body: equal bodies of two tenants do not show as equal."""
    return _digest(b"body", tenant.encode(), body)


def run_name(tenant: str, content: bytes) -> str:
    """Return the default name of a run: a digest of tenant and file, 32 hex digits."""
    return _digest(b"run", tenant.encode(), content).hex()[:32]


def job_key(request_id: bytes, step: int, branch: int, attempt: int) -> str:
    """Return the job id, which is also the idempotency key that the provider sees."""
    return f"{request_id.hex()}-{step}-{branch}-{attempt}"


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of `requests` for *key*; ids are uniform, other keys are hashed."""
    uniform = key if len(key) == ID_BYTES else hashlib.sha256(key).digest()
    return int.from_bytes(uniform[:8], "big") % partitions


def parse_id(text: str) -> bytes:
    """Return the 16 bytes that *text* prints; raises ValueError if it is not 32 hex digits."""
    value = bytes.fromhex(text)
    if len(value) != ID_BYTES:
        message = f"{text!r} is not a request id: 32 hex digits are needed"
        raise ValueError(message)
    return value
