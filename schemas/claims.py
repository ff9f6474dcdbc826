"""Claim checks: how a reference to bytes kept outside the log is named, found in a record, and verified.

A reference is relative to a store, so that a store can be moved: two hex digits, the request's id and
a nonce. It is never a hash of the content, which two tenants could share. Pure.
"""

from __future__ import annotations

import re

from schemas.identity import body_digest
from schemas.sealed import Body, Claim, Sealed, unseal

FOLDER = "claims"
"""The folder of a kept log that holds the copied bytes, each in the file that its reference names."""

NONCE_BYTES = 16
_REFERENCE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}-[0-9a-f]{32}", re.ASCII)
_MENTION = re.compile(_REFERENCE.pattern.encode())


class ClaimBroken(ValueError):
    """What a store gave out is not what the record claims, or the reference is none of ours."""


def new_reference(request_id: bytes, nonce: bytes) -> str:
    """Return where bytes of *request_id* are kept; *nonce* is 16 unguessable bytes."""
    if len(nonce) != NONCE_BYTES:
        message = f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}"
        raise ValueError(message)
    name = f"{request_id.hex()}-{nonce.hex()}"
    return f"{nonce[:1].hex()}/{name}"


def is_reference(text: str) -> bool:
    """Tell whether *text* is a reference of ours, which never leads out of its store."""
    return _REFERENCE.fullmatch(text) is not None


def claimed(data: bytes, digest: bytes, reference: str, sealed: Sealed) -> Body:
    """Return the body that claims *data*, kept under *reference* as *sealed* says."""
    return Body(len(data), digest, claim=Claim(reference, sealed.key_id, sealed.alg, sealed.nonce))


def opened(body: Body, scope: str, kept: bytes) -> bytes:
    """Return the plain bytes of *body* from what its store *kept*; *scope* entered its digest.

    Raises:
        ClaimBroken: size or digest differ: other bytes are never passed for the body's.
        ValueError: it is sealed with a key that this process does not hold.
    """
    claim = body.claim
    if claim is None:
        message = "the body is no claim"
        raise ClaimBroken(message)
    data = unseal(Sealed(claim.key_id, claim.alg, claim.nonce, kept))
    if len(data) != body.size:
        message = f"claim {claim.uri} holds {len(data)} bytes where the record says {body.size}"
        raise ClaimBroken(message)
    if body_digest(scope, data) != body.digest:
        message = f"claim {claim.uri} holds other bytes than the record's digest says"
        raise ClaimBroken(message)
    return data


def mentioned(value: bytes | None) -> set[str]:
    """Return every reference that stands in the bytes of a record.

    Found without a schema: also in a record of a later version, and in the original that a dead
    letter or a retry carries.
    """
    return {found.decode() for found in _MENTION.findall(value)} if value else set()
