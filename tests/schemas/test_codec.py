"""The two codecs agree on every record, and foreign bytes are refused in one way only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import reference
from schemas.codec import Codec, SchemaEntry, UndecodableError, body_of, committed
from schemas.completion import Result
from schemas.control import PolicyActivated
from schemas.decision import Decision, Facts
from schemas.feedback import Feedback
from schemas.request import Request
from schemas.topics import RECORDS
from tests.schemas.records import SAMPLES, records

CODEC = Codec()
COMPILED = Codec(compiled=True)

both = pytest.mark.parametrize("codec", [CODEC, COMPILED], ids=["fastavro", "compiled"])

anything = st.sampled_from(RECORDS).flatmap(records)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_all_three_write_the_same_bytes(cls: type, data: st.DataObject) -> None:
    """Whatever the record, fastavro, the reference library and the compiled form give equal bytes."""
    record = data.draw(records(cls))

    assert CODEC.encode(record) == reference.encode(record) == COMPILED.encode(record)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_record_survives_the_round_trip_through_each(cls: type, data: st.DataObject) -> None:
    """A decoded record shows every field as it was encoded, NaN and signed zero included."""
    record = data.draw(records(cls))
    wire = CODEC.encode(record)

    assert repr(CODEC.decode(wire)) == repr(record)
    assert repr(reference.decode(wire)) == repr(record)
    assert repr(COMPILED.decode(wire)) == repr(record)
    assert CODEC.encode(CODEC.decode(wire)) == wire


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_bytes_raise_nothing_but_undecodable(data: st.DataObject) -> None:
    """However a record is damaged, decoding it gives a record or `UndecodableError`."""
    wire = bytearray(CODEC.encode(data.draw(anything)))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))

    for damaged in (bytes(wire), bytes(wire[:cut])):
        # fastavro cuts a number of more than 64 bits down; the compiled form refuses it.
        assert _outcome(COMPILED, damaged) in {_outcome(CODEC, damaged), "undecodable"}


def _outcome(codec: Codec, wire: bytes) -> str:
    """Return how *wire* decodes; raises whatever is neither a record nor `UndecodableError`."""
    try:
        decoded = codec.decode(wire)
    except UndecodableError:
        return "undecodable"
    assert type(decoded) in RECORDS
    return repr(decoded)


@given(st.binary(max_size=200), st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_foreign_bytes_raise_nothing_but_undecodable(body: bytes, schema_id: int) -> None:
    """Random bytes under any schema id give a record or `UndecodableError`."""
    for value in (body, b"\x00" + schema_id.to_bytes(4, "big") + body):
        assert _outcome(COMPILED, value) in {_outcome(CODEC, value), "undecodable"}


@both
@given(anything, st.binary(min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_bytes_left_over_are_refused(codec: Codec, record: Any, tail: bytes) -> None:
    """A record with bytes after it is not a record."""
    with pytest.raises(UndecodableError, match="left over"):
        codec.decode(CODEC.encode(record) + tail)


@both
@given(anything, st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_record_is_refused(codec: Codec, record: Any, data: st.DataObject) -> None:
    """Every proper prefix of a record is refused."""
    wire = CODEC.encode(record)

    with pytest.raises(UndecodableError):
        codec.decode(wire[: data.draw(st.integers(0, len(wire) - 1))])


def test_a_missing_value_is_refused() -> None:
    """A tombstone is no record."""
    with pytest.raises(UndecodableError, match="no value"):
        CODEC.decode(None)


def test_the_message_never_quotes_the_bytes() -> None:
    """What is refused may be a prompt, so the message says where it broke and nothing else."""
    with pytest.raises(UndecodableError) as refused:
        CODEC.decode(b"\x00\x00\x00\x00\x01my secret prompt")

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_another_record_than_the_expected_one_is_refused() -> None:
    """A Result where a Request belongs is named as such."""
    (request,) = [r for r in SAMPLES if isinstance(r, Request)]

    assert CODEC.decode_as(Request, CODEC.encode(request)) == request
    with pytest.raises(UndecodableError, match="a Request where a Result belongs"):
        CODEC.decode_as(Result, CODEC.encode(request))


def test_a_record_of_an_older_schema_is_read_with_the_defaults_of_this_one() -> None:
    """A log that was written before a defaulted field existed still decodes."""
    entry = committed()[1]
    without = entry.text.replace(
        """,
    {
      "name": "priority",
      "type": "long",
      "default": 0
    }""",
        "",
    )
    assert without != entry.text
    older = SchemaEntry(77, "Request", "an older one", without)
    (request,) = [r for r in SAMPLES if isinstance(r, Request)]
    wire = CODEC.encode(request)
    # The last field of a Request is one byte of zigzag; an older writer did not have it.
    old_wire = b"\x00" + (77).to_bytes(4, "big") + wire[5:-1]

    assert Codec(older=[older]).decode(old_wire).priority == 0
    assert Codec(older=[older], compiled=True).decode(old_wire).priority == 0


@both
def test_an_array_in_several_blocks_is_read(codec: Codec) -> None:
    """Other writers may split an array, with or without the size of each block."""
    record = Facts(("a", "b", "c"), ())
    assert body_of(Facts, record) == b"\x06\x02a\x02b\x02c\x00\x00"
    decision = next(s for s in SAMPLES if isinstance(s, Decision))
    wire = CODEC.encode(replace(decision, core=replace(decision.core, facts=record)))
    whole = body_of(Facts, record)
    split = b"\x02\x02a" + b"\x03\x08\x02b\x02c" + b"\x00\x00"

    assert wire.count(whole) == 1
    assert codec.decode(wire.replace(whole, split)) == codec.decode(wire)


@both
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_does_not_fit_is_refused(codec: Codec, number: int) -> None:
    """A long has 64 bits, and a larger number is not cut down in silence."""
    with pytest.raises(OverflowError):
        codec.encode(PolicyActivated("", "", "", number))


@both
def test_an_id_of_another_size_is_refused(codec: Codec) -> None:
    """Sixteen bytes are an id."""
    rating = next(s for s in SAMPLES if isinstance(s, Feedback))

    with pytest.raises(ValueError, match=r"size|fixed"):
        codec.encode(replace(rating, request_id=b"short"))


@pytest.mark.parametrize(
    "varint",
    [b"\x80" * 9 + b"\x02", b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\x01", b"\x82" + b"\x80" * 10 + b"\x00"],
    ids=["65 bits", "70 bits", "77 bits", "a small one drawn out"],
)
def test_a_varint_beyond_64_bits_is_undecodable(varint: bytes) -> None:
    """As in the reference library; fastavro would cut it down to another number."""
    (request,) = [r for r in SAMPLES if isinstance(r, Request)]
    wire = CODEC.encode(replace(request, priority=0))
    assert wire.endswith(b"\x00")

    with pytest.raises(UndecodableError):
        COMPILED.decode(wire[:-1] + varint)


def test_the_size_of_a_block_is_a_number_of_64_bits_too() -> None:
    """However long the varint of a size is, which nothing uses, it ends within its ten bytes."""
    record = Facts(("a",), ())
    decision = next(s for s in SAMPLES if isinstance(s, Decision))
    wire = CODEC.encode(replace(decision, core=replace(decision.core, facts=record)))
    whole = body_of(Facts, record)
    assert wire.count(whole) == 1

    with pytest.raises(UndecodableError):
        COMPILED.decode(wire.replace(whole, b"\x01" + b"\x80" * 11 + b"\x01" + b"\x02a" + b"\x00\x00"))
