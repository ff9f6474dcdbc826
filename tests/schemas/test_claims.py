"""References, digests and mentions of claims."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.claims import ClaimBroken, claimed, is_reference, mentioned, new_reference, opened
from schemas.codec import Codec
from schemas.identity import body_digest
from schemas.sealed import seal_plainly
from tests.schemas.records import SAMPLES

ids = st.binary(min_size=16, max_size=16)


@given(ids, ids)
def test_a_reference_is_one_and_is_found_in_any_bytes(request_id: bytes, nonce: bytes) -> None:
    """What was made is recognised, alone and inside the bytes of a record."""
    reference = new_reference(request_id, nonce)

    assert is_reference(reference)
    assert mentioned(b"\x00\x00" + reference.encode() + b"\xff") == {reference}


@given(ids, ids, ids)
def test_equal_requests_are_kept_apart(request_id: bytes, one: bytes, other: bytes) -> None:
    """The place follows from the nonce alone, never from the content."""
    assert (new_reference(request_id, one) == new_reference(request_id, other)) == (one == other)


@given(st.text())
def test_nothing_that_leads_elsewhere_is_a_reference(text: str) -> None:
    """Dots, slashes, newlines and other digits do not pass."""
    assert not is_reference(text) or (text[2] == "/" and len(text) == 68)
    assert not is_reference("aa/" + "0" * 32 + "-" + "0" * 32 + "\n")


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=5))
def test_only_the_same_bytes_open_a_claim(data: bytes, other: bytes, tenant: str) -> None:
    """A store that gives out anything else is found out, whatever its size."""
    sealed = seal_plainly(data)
    body = claimed(data, body_digest(tenant, data), "ref", sealed)

    assert opened(body, tenant, data) == data
    if other != data:
        with pytest.raises(ClaimBroken):
            opened(body, tenant, other)


def test_another_tenants_equal_body_does_not_open_it() -> None:
    """The digest is of the tenant too."""
    body = claimed(b"x", body_digest("a", b"x"), "ref", seal_plainly(b"x"))
    with pytest.raises(ClaimBroken, match="other bytes"):
        opened(body, "b", b"x")


def test_a_body_without_a_claim_is_not_opened() -> None:
    """An inline body has nothing to fetch."""
    body = claimed(b"x", b"", "ref", seal_plainly(b"x"))
    with pytest.raises(ClaimBroken, match="no claim"):
        opened(replace(body, claim=None), "a", b"x")


def test_the_nonce_has_its_size() -> None:
    """A short nonce could be guessed."""
    with pytest.raises(ValueError, match="16 bytes"):
        new_reference(bytes(16), b"short")


def test_records_mention_what_they_claim() -> None:
    """Every record that has a body can be asked by its bytes alone."""
    reference = new_reference(bytes(16), bytes(16))
    request = next(record for record in SAMPLES if type(record).__name__ == "Request")
    body = claimed(b"x", b"", reference, seal_plainly(b"x"))

    assert mentioned(Codec().encode(replace(request, body=body))) == {reference}
    assert mentioned(None) == set()
