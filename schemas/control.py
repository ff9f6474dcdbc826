"""What operators and clients tell the system: policies, what is active, runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyPublished:
    """A policy by its hash; `text` is the JSON normal form that the hash is of."""

    policy_hash: str
    text: str
    actor: str
    published_at: int


@dataclass(frozen=True, slots=True)
class PolicyActivated:
    """From now on requests are stamped with this policy."""

    policy_hash: str
    actor: str
    reason: str
    activated_at: int


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """Where a topic's partition ended at some moment."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RunOpened:
    """A batch file is about to be submitted; its records lie at or after these positions."""

    run: str
    tenant: str
    file_digest: str
    opened_at: int
    positions: tuple[TopicPosition, ...]


@dataclass(frozen=True, slots=True)
class RunSubmitted:
    """A batch file has been submitted: every accepted line is acknowledged by the log."""

    run: str
    tenant: str
    lines: int
    accepted: int
    refused: int
    duplicates: int
    submitted_at: int
