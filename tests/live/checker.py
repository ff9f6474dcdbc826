"""Judge a kill run from what it left behind: `python -m tests.live.checker DIR`.

A pure function over the files in DIR, so that whoever doubts a verdict can compute it again. It reads
`submitted.jsonl`, `kills.jsonl`, `provider_calls.jsonl` and the kept log, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from schemas.codec import Codec, UndecodableError
from schemas.completion import Result
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.logdir import LogDir, LogDirError
from schemas.request import Request
from schemas.topics import DEAD_LETTERS, DECISIONS, REQUESTS, RESULTS

PHASES = ("idle", "in_step", "produced_uncommitted", "being_assigned", "starting")
_OK = range(200, 300)
_CALL_FIELDS = 4
_REFUSED = 400
_SHOWN = 20
_USAGE = 2

Row = Mapping[str, Any]


@dataclass(slots=True)
class Evidence:
    """What the files say, request ids as 32 hex digits."""

    submitted: Sequence[Row]
    kills: Sequence[Row]
    calls: Sequence[Row]
    requests: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, int] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    decisions: Counter[str] = field(default_factory=Counter)
    first_jobs: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    jobs: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    ended: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """Defects by kind, counts, and kills by role and phase."""

    defects: dict[str, list[str]]
    totals: dict[str, int]
    kills: dict[str, Counter[str]]

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or decided twice."""
        return not any(self.defects.values())


def read(out: Path) -> Evidence:
    """Return what *out* holds; raises OSError, ValueError or `LogDirError` where it cannot be read."""
    evidence = Evidence(
        _rows(out / "submitted.jsonl"), _rows(out / "kills.jsonl"), _rows(out / "provider_calls.jsonl")
    )
    log = LogDir(out / "log")
    codec = Codec(log.schemas().values())
    for topic in log.topics():
        if topic in (REQUESTS, RESULTS, DECISIONS, DEAD_LETTERS) or topic.startswith(("jobs.", "attempts.")):
            for envelope in log.read(topic):
                _take(evidence, topic, envelope, codec)
    return evidence


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _take(evidence: Evidence, topic: str, envelope: Any, codec: Codec) -> None:
    record = _decoded(codec, envelope.value)
    if record is None:
        return
    request_id = record.request_id.hex() if record.request_id is not None else ""
    match record:
        case Request():
            evidence.requests[request_id] += 1
        case Result():
            evidence.results[request_id] += 1
            evidence.statuses.setdefault(request_id, record.status)
        case Decision():
            evidence.decisions[request_id] += 1
        case DeadLetter():
            evidence.dead.add(request_id)
        case _:
            _take_work(evidence, topic, envelope.timestamp / 1000, record)


def _take_work(evidence: Evidence, topic: str, at: float, record: Any) -> None:
    match record:
        case Job():
            evidence.jobs[record.key] += 1
            if record.attempt == 0:
                evidence.first_jobs[record.request_id.hex()].add((record.provider, record.model))
        case AttemptEnded() if record.outcome == "unanswered":
            evidence.unanswered[record.key] += 1
        case AttemptEnded():
            evidence.ended.setdefault(record.key, at)
        case AttemptStarted():
            pass
        case _:
            message = f"{topic} holds a {type(record).__name__}, which does not belong there"
            raise ValueError(message)


def _decoded(codec: Codec, value: bytes | None) -> Any:
    try:
        return codec.decode(value)
    except UndecodableError:
        return None


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict on *evidence*."""
    calls = _by_key(evidence.calls)
    repeated, unexplained = _repeats(evidence, calls)
    doubled, disowned = _doubled(calls)
    accepted = [row["request_id"] for row in evidence.submitted if row["acknowledged"]]
    defects = {
        "lost": sorted(i for i in accepted if not evidence.results[i]),
        "not_in_log": sorted(i for i in accepted if not evidence.requests[i]),
        "doubled": doubled,
        "called_again": unexplained,
        "two_decisions_acted": sorted(i for i, plans in evidence.first_jobs.items() if len(plans) > 1),
        "strange_result": sorted(set(evidence.results) - set(evidence.requests)),
        "keyless_call": sorted(row["request_id"] for row in evidence.calls if not row["idempotency_key"]),
    }
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.kills:
        kills[row["role"]][row["phase"]] += 1
    totals = {
        "submitted": len(evidence.submitted),
        "accepted": len(accepted),
        "effective_results": sum(bool(evidence.results[i]) for i in accepted),
        "answered_ok": sum(evidence.statuses.get(i, 0) in _OK for i in accepted),
        "dead_lettered": len(evidence.dead),
        "kills": len(evidence.kills),
        "least_in_flight": min((row.get("in_flight", 0) for row in evidence.kills), default=0),
        "calls": len(evidence.calls),
        "calls_repeated": repeated,
        "answers_disowned": disowned,
        "unanswered": sum(evidence.unanswered.values()),
        "decisions_collapsed": _extra(evidence.decisions),
        "jobs_collapsed": _extra(evidence.jobs),
        "results_collapsed": _extra(evidence.results),
        "requests_collapsed": _extra(evidence.requests),
    }
    return Verdict(defects, totals, dict(kills))


def _extra(counts: Counter[str]) -> int:
    return sum(count - 1 for count in counts.values() if count > 1)


def _by_key(calls: Iterable[Row]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(calls, key=lambda row: row["time"]):
        found[row["idempotency_key"]].append(row)
    return found


def _doubled(calls: Mapping[str, Sequence[Row]]) -> tuple[list[str], int]:
    """Return the requests answered well under several idempotency keys, and how many answers do not count.

    A provider that answered a key well and later refuses the same key does not honour it: the worker,
    which died before it could note the answer, asked in the right way and has to go by the refusal.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    disowned = 0
    for key, rows in calls.items():
        good = [n for n, row in enumerate(rows) if row["status"] in _OK]
        if not good:
            continue
        if any(row["status"] >= _REFUSED for row in rows[good[-1] :]):
            disowned += 1
        else:
            keys[_request_of(rows[0])].add(key)
    return sorted(request_id for request_id, found in keys.items() if len(found) > 1), disowned


def _request_of(row: Row) -> str:
    parts = str(row["idempotency_key"]).rsplit("-", _CALL_FIELDS - 1)
    return parts[0] if len(parts) == _CALL_FIELDS else str(row["request_id"])


def _repeats(evidence: Evidence, calls: Mapping[str, Sequence[Row]]) -> tuple[int, list[str]]:
    """Count calls repeated under one key; return those that neither a kill nor a silence explains.

    A kill of the provider's worker while the job was in flight, that is before its end is in the log,
    allows one more call of it.
    """
    repeated, unexplained = 0, []
    for key, rows in calls.items():
        if key and len(rows) > 1:
            repeated += len(rows) - 1
            silent = evidence.unanswered[key]
            kills = {
                index
                for row, following in pairwise(rows)
                for index, kill in enumerate(evidence.kills)
                if _explains(kill, row, min(following["time"], evidence.ended.get(key, following["time"])))
            }
            if len(rows) - 1 > silent + len(kills):
                unexplained.append(key)
    return repeated, sorted(unexplained)


def _explains(kill: Row, call: Row, until: float) -> bool:
    """Whether *kill* hit the worker of *call* before *until*, when its job was still in flight."""
    mine = kill["role"] == f"provider.{call['provider']}"
    return mine and bool(call["time"] <= kill["time"] <= until)


def report(verdict: Verdict) -> str:
    """Return the table of kills, one line of totals and the defects."""
    roles = sorted(verdict.kills)
    lines = [f"{'role':<20}" + "".join(f"{phase:>22}" for phase in PHASES)]
    lines += [f"{role:<20}" + "".join(f"{verdict.kills[role][p]:>22}" for p in PHASES) for role in roles]
    lines.append(" ".join(f"{name}={count}" for name, count in verdict.totals.items()))
    for kind, found in verdict.defects.items():
        if found:
            lines.append(f"DEFECT {kind}: {len(found)}: {' '.join(found[:_SHOWN])}")
    lines.append("verdict: " + ("nothing lost, nothing doubled" if verdict.ok else "DEFECTIVE"))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge DIR; exit code 0 if nothing is wrong, 1 if something is, 2 if it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.checker", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder that a kill run left")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        verdict = judge(read(given.out))
    except (OSError, ValueError, KeyError, LogDirError) as error:
        sys.stderr.write(f"checker: {given.out} is not what a kill run leaves: {error}\n")
        return _USAGE
    if given.json:
        document = {
            "ok": verdict.ok,
            "defects": verdict.defects,
            "totals": verdict.totals,
            "kills": verdict.kills,
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(report(verdict) + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
