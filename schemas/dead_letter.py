"""A record that nobody could process: its bytes untouched, with where and why."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.shape import Id16


@dataclass(frozen=True, slots=True)
class Header:
    """One header of the original record."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The original key, value and headers, the stage that gave up, and a reason without quotes."""

    stage: str
    error_class: str
    reason: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    attempts: int
    policy_hash: str
    died_at: int
    request_id: Id16 | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class LetterClosed:
    """What became of the dead letter at `partition` and `offset` of its topic: redriven, or purged.

    A redriven one returned to `topic`, where it is at `to_offset` of its old partition; -1 if purged.
    """

    partition: int
    offset: int
    verb: str
    actor: str
    closed_at: int
    topic: str
    to_partition: int
    to_offset: int
    request_id: Id16 | None = None
