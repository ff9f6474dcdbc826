"""Identity, sealing and the parts of records that have behaviour of their own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decision import Facts
from schemas.identity import (
    body_digest,
    custom_request_id,
    inbox_request_id,
    job_key,
    line_request_id,
    parse_id,
    partition_for,
    run_name,
)
from schemas.sealed import Sealed, seal_plainly, unseal
from schemas.shape import avro_schema
from schemas.signal import Observation, Observations
from schemas.topics import RECORDS

words = st.text(max_size=12)


@given(st.tuples(words, words, words), st.tuples(words, words, words))
def test_different_lines_have_different_ids(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """No two of (tenant, run, custom id) share an id by moving characters between the parts."""
    assert (custom_request_id(*one) == custom_request_id(*other)) == (one == other)


def test_a_line_number_is_not_a_custom_id() -> None:
    """The line numbered 7 and the line that its caller named 7 are two requests."""
    assert line_request_id("t", "r", 7) != custom_request_id("t", "r", "7")


def test_ids_never_change() -> None:
    """The ids of a given tenant, run and name are those that logs already hold."""
    assert custom_request_id("acme", "nightly", "line-7").hex() == "5b6c7b4dca7076d7438e3f68a76b0971"
    assert job_key(b"\xab" * 16, 1, 0, 2) == "ab" * 16 + "-1-0-2"
    assert len(run_name("acme", b"file")) == 32
    assert len(inbox_request_id("cluster", "inbox", 0, 1)) == 16


def test_equal_bodies_of_two_tenants_have_different_digests() -> None:
    """A digest does not tell one tenant what another asked."""
    assert body_digest("a", b"body") != body_digest("b", b"body")


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_partition_is_within_range(key: bytes, partitions: int) -> None:
    """Whatever the key, its partition exists."""
    assert 0 <= partition_for(key, partitions) < partitions


@given(st.binary(min_size=16, max_size=16))
def test_a_printed_id_is_read_back(value: bytes) -> None:
    """Thirty-two hex digits are an id."""
    assert parse_id(value.hex()) == value


@pytest.mark.parametrize("text", ["", "ab", "zz" * 16, "ab" * 17])
def test_anything_else_is_no_id(text: str) -> None:
    """A wrong length and a wrong digit are errors."""
    with pytest.raises(ValueError, match=r"request id|non-hexadecimal"):
        parse_id(text)


def test_sealed_bytes_open_without_a_key_only_if_none_was_used() -> None:
    """Bytes under a key are not handed out as if they were plain."""
    assert unseal(seal_plainly(b"plain")) == b"plain"
    with pytest.raises(ValueError, match="key 'k1'"):
        unseal(Sealed("k1", "aes-256-gcm", b"", b"?"))


def test_observations_keep_their_order_as_arrays_and_back() -> None:
    """Rows become columns and rows again."""
    rows = [Observation("keyword", f"k{i}", "", i == 1, 0.5, float(i), "ok", "") for i in range(3)]

    assert list(Observations.of(rows)) == rows
    assert list(Observations.of([])) == []


def test_a_fact_is_found_by_name() -> None:
    """A fact that was not logged is None."""
    facts = Facts(("budget", "price_version"), ("12", "v1"))

    assert facts.get("price_version") == "v1"
    assert facts.get("health") is None


def test_no_schema_holds_a_default_that_json_cannot_say() -> None:
    """Not one record has NaN as a default."""

    def defaults(schema: object) -> list[object]:
        if isinstance(schema, dict):
            own = [schema["default"]] if "default" in schema else []
            return own + [d for value in schema.values() for d in defaults(value)]
        return [d for item in schema for d in defaults(item)] if isinstance(schema, list) else []

    found = [d for cls in RECORDS for d in defaults(avro_schema(cls))]

    assert found
    assert not any(isinstance(d, float) and math.isnan(d) for d in found)
