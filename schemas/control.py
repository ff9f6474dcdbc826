"""What operators and clients tell the system: policies, what is active, runs, what is paused."""

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
    """From now on requests are stamped with this policy.

    `how` is activated or rolled_back; `replaces` is what its author had read to be active, "" for nothing.
    `signature` is kept as it was given, over whatever its author's procedure signs; nothing of ours reads
    it. `replay_report` is the digest of the report that the change rests on.
    """

    policy_hash: str
    actor: str
    reason: str
    activated_at: int
    how: str = "activated"
    replaces: str = ""
    signature: str = ""
    replay_report: str = ""


@dataclass(frozen=True, slots=True)
class PolicyShadowed:
    """From now on the decision role also decides by this policy, into `decisions.shadow`; "" ends it.

    `signature` and `replay_report` are as of `PolicyActivated`.
    """

    policy_hash: str
    actor: str
    reason: str
    shadowed_at: int
    signature: str = ""
    replay_report: str = ""


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


@dataclass(frozen=True, slots=True)
class Paused:
    """An operator stopped something, and it stays stopped until a `Resumed` of the same scope and name.

    `scope` is stage, provider, tenant or all; `name` is the role's, provider's or tenant's, empty for all.
    """

    scope: str
    name: str
    actor: str
    reason: str
    paused_at: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """An operator let go on what a `Paused` of the same scope and name had stopped."""

    scope: str
    name: str
    actor: str
    reason: str
    resumed_at: int
