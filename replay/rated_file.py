"""Ratings that are kept outside the log, for evaluation: the lines that `signalbox feedback` takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from agents.errors import InvalidRecord
from agents.ratings import Defaults, Line, lines_of
from replay.rewards import SCHEMA

_SHOWN = 5
_FIRST = 0
"""When a rating without a time arrived: never late, and before any other of its request."""


@dataclass(frozen=True)
class RatedFile:
    """The ratings of a file in the columns of feedback, and what file that was."""

    table: pa.Table
    sha256: str

    def as_json(self) -> dict[str, object]:
        """Return what is told of it."""
        return {"sha256": self.sha256, "ratings": len(self.table)}


def rated_file(path: Path) -> RatedFile:
    """Read *path*; raises `InvalidRecord` if a line is no rating, naming the first few, and `OSError`."""
    content = path.read_bytes()
    lines = list(lines_of(content, Defaults()))
    bad = [line for line in lines if line.rating is None]
    if bad:
        raise InvalidRecord(f"{path}: {len(bad):,} of {len(lines):,} lines are no ratings: {_told(bad)}")
    ratings = [line.rating for line in lines if line.rating is not None]
    columns = {
        "request_id": [rating.request_id for rating in ratings],
        "source": [rating.source for rating in ratings],
        "metric": [rating.metric for rating in ratings],
        "reward": [rating.reward for rating in ratings],
        "observation": [rating.observation for rating in ratings],
        "arrived_at": [_FIRST if rating.rated_at is None else rating.rated_at for rating in ratings],
    }
    return RatedFile(pa.table(columns, schema=SCHEMA), hashlib.sha256(content).hexdigest())


def _told(bad: list[Line]) -> str:
    shown = "; ".join(f"line {line.number}: {line.message}" for line in bad[:_SHOWN])
    return shown if len(bad) <= _SHOWN else f"{shown}; ..."
