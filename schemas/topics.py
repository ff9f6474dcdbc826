"""The topic catalogue: which record travels where, under which name, key and retention.

The documentation's table, the broker's topics and the tests are all made from it. Every topic
has the same number of partitions, because a derived record is written to the partition number
of its origin.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.completion import Completion, Result
from schemas.control import (
    Paused,
    PolicyActivated,
    PolicyPublished,
    PolicyShadowed,
    Resumed,
    RunOpened,
    RunSubmitted,
)
from schemas.dead_letter import DeadLetter, LetterClosed
from schemas.decision import Decision
from schemas.feedback import Feedback
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.request import Request
from schemas.retry import Retry
from schemas.signal import SignalSet

RECORDS: tuple[type, ...] = (
    Request,
    SignalSet,
    Decision,
    Job,
    AttemptStarted,
    AttemptEnded,
    Completion,
    Result,
    Feedback,
    DeadLetter,
    PolicyPublished,
    PolicyActivated,
    RunOpened,
    RunSubmitted,
    Retry,
    Paused,
    Resumed,
    LetterClosed,
    PolicyShadowed,
)
"""Every record class, in the order of its schema id; append only."""

MAJOR = 1
"""Major version of every topic, which a compatible change never moves; 0 was without a promise."""


MAX_BYTES = 8 * 1024 * 1024
"""What a record of any topic may have on the broker."""

LETTER_BYTES = 64 * 1024
"""What a dead letter has besides the original: place, reason, and its own headers."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A logical topic. A name with ``<...>`` is a family: one topic per role, provider or source."""

    name: str
    records: tuple[type, ...]
    key: str
    retention: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: str = "all"
    compacted: bool = False
    note: str = ""
    max_bytes: int = MAX_BYTES


_WORKERS = ("admission", "signals", "decision", "dispatch", "provider", "retry")
_COMMANDS = ("submit", "run-status", "status", "pause", "resume", "dlq", "feedback", "policy")

CATALOGUE: tuple[Topic, ...] = (
    Topic(
        "inbox.<source>",
        (),
        "any",
        "body",
        ("users' own producers",),
        ("admission",),
        note="foreign bytes; a mapping turns each into a Request",
    ),
    Topic(
        "requests",
        (Request,),
        "tenant + idempotency key, else request_id",
        "body",
        ("admission", "submit", "run"),
        ("signals", "decision", "dispatch", "archive", "submit", "run-status"),
        note="immutable; written by admission only",
    ),
    Topic(
        "signals.<role>",
        (SignalSet,),
        "request_id",
        "decision",
        ("signals",),
        ("decision", "archive"),
        note="partition of the origin; LogAppendTime decides what is in time",
    ),
    Topic(
        "decisions",
        (Decision,),
        "request_id",
        "decision",
        ("decision", "dispatch"),
        ("decision", "dispatch", "archive", "feedback"),
        note="the first one of a request in partition order is the decision",
    ),
    Topic(
        "decisions.shadow",
        (Decision,),
        "request_id",
        "decision",
        ("decision",),
        (),
        note="what the shadow policy would have decided; nothing acts on it",
    ),
    Topic(
        "jobs.<provider>.<class>",
        (Job,),
        "request_id",
        "body",
        ("dispatch", "provider", "retry"),
        ("provider",),
        note="job id = (request, step, branch, attempt)",
    ),
    Topic(
        "attempts.<provider>",
        (AttemptStarted, AttemptEnded),
        "request_id",
        "decision",
        ("provider",),
        ("provider",),
        note="the ledger; a start is acknowledged before the call",
    ),
    Topic(
        "retry.<delay>",
        (Retry,),
        "request_id",
        "body",
        ("provider", "retry"),
        ("retry",),
        note="a record and where it belongs, back there when due; partition of the origin",
    ),
    Topic("completions", (Completion,), "request_id", "body", ("provider",), ("archive",)),
    Topic(
        "results",
        (Result,),
        "request_id",
        "body",
        ("provider", "dispatch"),
        ("archive", "submit", "run", "run-status"),
        note="the first one of a request in partition order is effective",
    ),
    Topic(
        "feedback",
        (Feedback,),
        "request_id",
        "decision",
        ("feedback", "users", "judges"),
        ("archive",),
        note="partition of the origin, if the rater knows it",
    ),
    Topic(
        "dead-letters",
        (DeadLetter, LetterClosed),
        "key of the original",
        "body",
        (*_WORKERS, "dlq"),
        ("submit", "run-status", "dlq"),
        note="original bytes untouched, partition of the original",
        max_bytes=MAX_BYTES + LETTER_BYTES,
    ),
    Topic(
        "control.policy",
        (PolicyPublished, PolicyActivated, PolicyShadowed),
        "policy hash, the activation's own, or 'shadow'",
        "forever",
        ("up", "submit", "run", "policy"),
        (*_WORKERS, "archive", *_COMMANDS),
        partitions="one",
        compacted=True,
    ),
    Topic(
        "control.events",
        (RunOpened, RunSubmitted, Paused, Resumed),
        "run, or what is paused",
        "forever",
        ("submit", "run", "pause", "resume"),
        (*_WORKERS, "archive", *_COMMANDS),
        partitions="one",
    ),
)

BY_NAME = {topic.name: topic for topic in CATALOGUE}

REQUESTS = "requests"
DECISIONS = "decisions"
SHADOW_DECISIONS = "decisions.shadow"
COMPLETIONS = "completions"
RESULTS = "results"
FEEDBACK = "feedback"
DEAD_LETTERS = "dead-letters"
CONTROL_POLICY = "control.policy"
CONTROL_EVENTS = "control.events"


def inbox_topic(source: str) -> str:
    """Return the logical name of the inbox of *source*."""
    return f"inbox.{source}"


def signals_topic(role: str) -> str:
    """Return the logical name of the topic that signal role *role* writes."""
    return f"signals.{role}"


def jobs_topic(provider: str, job_class: str = "batch") -> str:
    """Return the logical name of the topic of *provider*'s jobs of one priority class."""
    return f"jobs.{provider}.{job_class}"


def retry_topic(delay: str) -> str:
    """Return the logical name of the tier in which records wait for *delay*."""
    return f"retry.{delay}"


def attempts_topic(provider: str) -> str:
    """Return the logical name of *provider*'s ledger."""
    return f"attempts.{provider}"


def family(name: str) -> Topic:
    """Return the catalogue entry that logical *name* belongs to; raises KeyError."""
    if name in BY_NAME:
        return BY_NAME[name]
    return BY_NAME[
        next(t.name for t in CATALOGUE if "<" in t.name and name.startswith(t.name.split("<", 1)[0]))
    ]


def full_name(prefix: str, name: str) -> str:
    """Return the name on the broker: ``<prefix>.<entity>.v<major>``."""
    return f"{prefix}.{name}.v{MAJOR}"


def logical_name(prefix: str, full: str) -> str:
    """Return the logical name behind a broker's topic name; raises ValueError if it is not ours."""
    head, tail = f"{prefix}.", f".v{MAJOR}"
    if not (full.startswith(head) and full.endswith(tail)):
        message = f"{full!r} is no topic of prefix {prefix!r}, version {MAJOR}"
        raise ValueError(message)
    return full[len(head) : -len(tail)]


def logged_name(prefix: str, full: str) -> str:
    """Return the logical name behind a topic's name in a log, which an earlier major may have written.

    Raises ValueError if it is not ours.
    """
    head, _, major = full.rpartition(".v")
    if major.isdigit() and int(major) <= MAJOR:
        return logical_name(prefix, f"{head}.v{MAJOR}")
    return logical_name(prefix, full)


def table() -> str:
    """Return the catalogue as the Markdown table that the documentation shows."""
    rows = ["| topic | records | key | retention | written by | read by | note |", "|---" * 7 + "|"]
    for t in CATALOGUE:
        names = ", ".join(r.__name__ for r in t.records) or "foreign bytes"
        kept = f"{t.retention}, compacted" if t.compacted else t.retention
        ends = (", ".join(t.producers), ", ".join(t.consumers) or "-")
        cells = (f"`{t.name}`", names, t.key, kept, *ends, t.note)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"
