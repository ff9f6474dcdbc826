"""A file of ratings, read: what somebody says of how requests were answered, one JSON object a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from agents.errors import Refused
from schemas.feedback import Feedback
from schemas.identity import Origin, custom_request_id, parse_id

METRIC, SOURCE = "quality", "user"
"""What a rating measures, and who gives it, where its line does not say."""

FIELDS = ("request_id", "custom_id", "run", "tenant", "metric", "source", "reward", "observation", "rated_at")
_MAX_NAME = 200
_BOM = b"\xef\xbb\xbf"
_OUTPUT_ID = "batch_req_"
_LATEST = 253_402_300_800_000
"""The year 10000, in ms."""


@dataclass(frozen=True, slots=True)
class Rating:
    """One rating; `observation` is in (0, 1] or NaN, `rated_at` ms since the epoch or None if not told."""

    request_id: bytes
    metric: str
    source: str
    reward: float
    observation: float
    rated_at: int | None

    def feedback(self, now: int, origin: Origin | None) -> Feedback:
        """Return the record of it, as of *now* (ms) where the line has no time."""
        arrived = now if self.rated_at is None else self.rated_at
        return Feedback(
            self.request_id, self.source, self.metric, self.reward, self.observation, arrived, origin
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, by its number: the rating in it, or why there is none."""

    number: int
    rating: Rating | None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a line does not say: whose run its `custom_id` is of, the metric and the source."""

    tenant: str = "default"
    run: str | None = None
    metric: str = METRIC
    source: str = SOURCE


def lines_of(content: bytes, defaults: Defaults) -> Iterator[Line]:
    """Yield each line of *content* that is not blank; lines count from 1."""
    for number, raw in enumerate(content.removeprefix(_BOM).splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            yield Line(number, read_rating(raw, defaults))
        except Refused as refused:
            yield Line(number, None, refused.code, refused.message)


def read_rating(raw: bytes, defaults: Defaults) -> Rating:
    """Return the rating in one line; raises `Refused`, which quotes no value of it.

    A request is named by `request_id` (32 hex digits, `batch_req_` before them allowed: the `id` of an
    output line) or by the `custom_id` of a run's line, which had no idempotency key.
    """
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Refused("invalid_json", "the line is not JSON") from None
    if not isinstance(row, dict):
        raise Refused("invalid_rating", "the line is not a JSON object")
    unknown = sorted(set(row) - set(FIELDS))
    if unknown:
        raise Refused("unknown_field", f"a rating has the fields {', '.join(FIELDS)}, no others")
    return Rating(
        request_id=_request_id(row, defaults),
        metric=_name(row, "metric", defaults.metric),
        source=_name(row, "source", defaults.source),
        reward=_reward(row),
        observation=_observation(row),
        rated_at=_time(row),
    )


def _request_id(row: Mapping[str, Any], defaults: Defaults) -> bytes:
    given, custom = row.get("request_id"), row.get("custom_id")
    if (given is None) == (custom is None):
        raise Refused("request_not_named", "a rating names its request by request_id or by custom_id")
    if custom is not None:
        run = row.get("run", defaults.run)
        if not isinstance(custom, str) or not isinstance(run, str):
            message = "custom_id is text, and goes with the run's name: in the line, or for the whole file"
            raise Refused("request_not_named", message)
        return custom_request_id(_name(row, "tenant", defaults.tenant), run, custom)
    try:
        return parse_id(str(given).removeprefix(_OUTPUT_ID))
    except ValueError:
        raise Refused("invalid_request_id", "request_id is 32 hex digits") from None


def _name(row: Mapping[str, Any], field: str, default: str) -> str:
    found = row.get(field)
    if found is None:
        return default
    if not isinstance(found, str) or not found.isprintable() or not 0 < len(found) <= _MAX_NAME:
        raise Refused(f"invalid_{field}", f"{field} is text of at most {_MAX_NAME} printable characters")
    return found


def _reward(row: Mapping[str, Any]) -> float:
    reward = row.get("reward")
    if isinstance(reward, int | float) and math.isfinite(reward):
        return float(reward)  # true and false, as a thumb up or down, are 1 and 0
    raise Refused("invalid_reward", "reward is a number, true or false")


def _observation(row: Mapping[str, Any]) -> float:
    found = row.get("observation")
    if found is None:
        return math.nan
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
        message = "observation is the probability that this rating is there, above 0 and at most 1"
        raise Refused("invalid_observation", message)
    return float(found)


def _time(row: Mapping[str, Any]) -> int | None:
    found = row.get("rated_at")
    if found is None:
        return None
    if isinstance(found, str):
        try:
            moment = datetime.fromisoformat(found)
        except ValueError:
            raise _no_time() from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        found = int(moment.timestamp() * 1000)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < _LATEST:
        raise _no_time()
    return found


def _no_time() -> Refused:
    message = "rated_at is milliseconds since the epoch, or a time such as 2026-11-26T10:00:00Z"
    return Refused("invalid_time", message)
