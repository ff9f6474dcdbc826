"""What the provider's own log of calls says: doubled effects, and which repeats a kill explains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.live.checker_evidence import Evidence, Row

OK = range(200, 300)
_KEY_PARTS = 4
_REFUSED = 400
_SLACK_S = 0.25
"""Between the clocks of log and provider, which is one clock read by two processes."""
_JUMP_BEFORE_S, _JUMP_AFTER_S = 15.0, 75.0
"""Around a jump of a worker's clock: what it wrote then is read by whoever takes over later."""


@dataclass(slots=True)
class Calls:
    """What was found about the calls of a run."""

    repeated: int = 0
    disowned: int = 0
    doubled: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    unstarted: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    keyless: list[str] = field(default_factory=list)


def examine(evidence: Evidence) -> Calls:
    """Return what the calls of *evidence* amount to."""
    found = Calls()
    by_key: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(evidence.calls, key=lambda row: row["time"]):
        by_key[row["idempotency_key"]].append(row)
    found.keyless = sorted(row["request_id"] for row in by_key.pop("", ()))
    _doubled(by_key, found)
    for key, rows in sorted(by_key.items()):
        if key not in evidence.jobs:
            found.phantom.append(key)
        if not _announced(evidence, key, rows[0]):
            found.unstarted.append(key)
        if len(rows) > 1:
            found.repeated += len(rows) - 1
            if len(rows) - 1 > len(evidence.unanswered[key]) + _kills(evidence, key, rows):
                found.again.append(key)
            if any(_beside(evidence, key, row, later) for row, later in pairwise(rows)):
                found.beside.append(key)
    return found


def _doubled(by_key: Mapping[str, Sequence[Row]], found: Calls) -> None:
    """Find requests answered well under several keys, and answers that do not count.

    A provider that answered a key well and later refuses the same key does not honour it: the worker,
    which died before it could note the answer, asked in the right way and has to go by the refusal.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    for key, rows in by_key.items():
        good = [n for n, row in enumerate(rows) if row["status"] in OK]
        if good and any(row["status"] >= _REFUSED for row in rows[good[-1] :]):
            found.disowned += 1
        elif good:
            keys[_request_of(rows[0])].add(key)
    found.doubled = sorted(request_id for request_id, several in keys.items() if len(several) > 1)


def _request_of(row: Row) -> str:
    parts = str(row["idempotency_key"]).rsplit("-", _KEY_PARTS - 1)
    return parts[0] if len(parts) == _KEY_PARTS else str(row["request_id"])


def _announced(evidence: Evidence, key: str, first: Row) -> bool:
    """Whether a start of *key* lay in the log before its *first* call reached the provider."""
    starts = evidence.started.get(key)
    return bool(starts) and min(at for at, _ in starts or ()) <= first["time"] + _SLACK_S / 5


def _kills(evidence: Evidence, key: str, rows: Sequence[Row]) -> int:
    """Count the deaths of the worker of *key* while the job was in flight: before its end is in the log."""
    return len(
        {
            index
            for row, later in pairwise(rows)
            for index, kill in enumerate(evidence.kills)
            if _explains(kill, row, min(later["time"], evidence.ended.get(key, later["time"])))
        }
    )


def _explains(kill: Row, call: Row, until: float) -> bool:
    mine = kill["role"] == f"provider.{call['provider']}"
    return mine and bool(call["time"] <= kill["time"] <= until)


def _beside(evidence: Evidence, key: str, call: Row, later: Row) -> bool:
    """Whether *later* was made while *call* might still have been under way, by a clock that is right."""
    between = [at for at in evidence.unanswered[key] if call["time"] <= at <= later["time"] + _SLACK_S]
    timeouts = [timeout for _, timeout in evidence.started.get(key, ())]
    if between or not timeouts or later["time"] >= call["time"] + min(timeouts) - _SLACK_S:
        return False
    return not any(_jumped(row, call) for row in evidence.disturbances)


def _jumped(row: Row, call: Row) -> bool:
    if row["kind"] != "clock_jump" or row.get("role") != f"provider.{call['provider']}":
        return False
    ended = row["ended"] or float("inf")
    return bool(row["began"] - _JUMP_BEFORE_S <= call["time"] <= ended + _JUMP_AFTER_S)
