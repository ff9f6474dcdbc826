"""Bytes that may have to be erased: sealed from the first version, inline or by claim check."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sealed:
    """Bytes under a key; destroying the key erases them. alg "none" until keys are configured."""

    key_id: str
    alg: str
    nonce: bytes
    data: bytes = field(metadata={"avro": "bytes"})


@dataclass(frozen=True, slots=True)
class Claim:
    """Where a body too large for a record is kept; the location is per request, never a content hash."""

    uri: str
    key_id: str
    alg: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: `sealed` inline, or a `claim` for it; size and digest are of the plain bytes."""

    size: int
    digest: bytes
    sealed: Sealed | None = None
    claim: Claim | None = None


def seal_plainly(data: bytes) -> Sealed:
    """Return *data* sealed with no key, which says so: alg "none"."""
    return Sealed(key_id="", alg="none", nonce=b"", data=data)


def unseal(sealed: Sealed) -> bytes:
    """Return the plain bytes; raises ValueError when a key would be needed."""
    if sealed.alg != "none":
        message = f"sealed with {sealed.alg!r} under key {sealed.key_id!r}, which this process does not hold"
        raise ValueError(message)
    return sealed.data
