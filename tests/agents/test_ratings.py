"""Lines of ratings: what they name, what they may say, and why one is refused."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import Refused
from agents.ratings import Defaults, Rating, lines_of, read_rating
from schemas.identity import Origin, custom_request_id

ID = bytes(range(16))
NOBODY = Defaults()


def rating(defaults: Defaults = NOBODY, **fields: Any) -> Rating:
    """Read a line with *fields*, of request `ID` and reward 1 unless they say otherwise."""
    row = {"request_id": ID.hex(), "reward": 1, **fields}
    return read_rating(
        orjson.dumps({name: value for name, value in row.items() if value is not None}), defaults
    )


def test_a_line_needs_no_more_than_a_request_and_a_reward() -> None:
    """The rest has defaults: quality, by a user, now, observed with a probability that nobody knows."""
    found = rating()

    assert (found.request_id, found.metric, found.source, found.reward) == (ID, "quality", "user", 1.0)
    assert math.isnan(found.observation)
    assert found.rated_at is None
    assert found.feedback(7, Origin(1, 2)).arrived_at == 7


@pytest.mark.parametrize("name", [ID.hex(), ID.hex().upper(), f"batch_req_{ID.hex()}"])
def test_a_request_is_named_as_results_name_it(name: str) -> None:
    """By the `id` of an output line too, so that results are rated without taking anything apart."""
    assert rating(request_id=name).request_id == ID


def test_a_custom_id_names_the_line_of_a_run() -> None:
    """Run and tenant are those of the line, else those of the file."""
    of_file = rating(Defaults("acme", "monday"), request_id=None, custom_id="c-1")
    of_line = rating(Defaults("acme", "monday"), request_id=None, custom_id="c-1", run="r", tenant="t")

    assert of_file.request_id == custom_request_id("acme", "monday", "c-1")
    assert of_line.request_id == custom_request_id("t", "r", "c-1")


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        (1_780_000_000_000, 1_780_000_000_000),
        ("2026-11-26T10:00:00Z", 1_795_687_200_000),
        ("2026-11-26T11:00:00+01:00", 1_795_687_200_000),
        ("2026-11-26T10:00:00", 1_795_687_200_000),
    ],
)
def test_times_are_ms_or_iso_and_utc_unless_they_say(given: object, ms: int) -> None:
    """As in the options of the commands."""
    assert rating(rated_at=given).rated_at == ms
    assert rating(rated_at=given).feedback(7, None).arrived_at == ms


def test_a_thumb_is_one_or_nothing() -> None:
    """True and false are rewards."""
    assert [rating(reward=thumb).reward for thumb in (True, False)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"request_id": None}, "request_not_named"),
        ({"custom_id": "c"}, "request_not_named"),
        ({"request_id": None, "custom_id": "c"}, "request_not_named"),
        ({"request_id": None, "custom_id": 7, "run": "r"}, "request_not_named"),
        ({"request_id": "abc"}, "invalid_request_id"),
        ({"request_id": 7}, "invalid_request_id"),
        ({"reward": None}, "invalid_reward"),
        ({"reward": "good"}, "invalid_reward"),
        ({"observation": 0}, "invalid_observation"),
        ({"observation": 1.01}, "invalid_observation"),
        ({"observation": True}, "invalid_observation"),
        ({"metric": ""}, "invalid_metric"),
        ({"source": 3}, "invalid_source"),
        ({"rated_at": "soon"}, "invalid_time"),
        ({"rated_at": True}, "invalid_time"),
        ({"rated_at": 1.5}, "invalid_time"),
        ({"rated_at": 2**62}, "invalid_time"),
        ({"rated_at": "0001-01-01"}, "invalid_time"),
        ({"rewards": 1}, "unknown_field"),
    ],
)
def test_what_is_no_rating_is_refused_by_a_code(fields: dict[str, Any], code: str) -> None:
    """A typo is not taken for a default, and nothing of the line is quoted."""
    with pytest.raises(Refused) as refused:
        rating(**fields)

    assert refused.value.code == code
    assert "good" not in refused.value.message


@given(st.binary(max_size=80))
def test_bytes_that_are_no_ratings_are_lines_with_a_reason(content: bytes) -> None:
    """Whatever the file holds, each line that is not blank has its number and its reason."""
    found = list(lines_of(content, NOBODY))

    assert all(line.rating is not None or (line.code and line.message) for line in found)
    assert len({line.number for line in found}) == len(found)


def test_blank_lines_count_and_say_nothing() -> None:
    """Numbers are those of an editor; a byte-order mark is no content."""
    row = orjson.dumps({"request_id": ID.hex(), "reward": 0.5})
    found = list(lines_of(b"\xef\xbb\xbf" + row + b"\r\n\n  \n[]\n", NOBODY))

    assert [(line.number, line.code) for line in found] == [(1, ""), (4, "invalid_rating")]
