"""Judge a kill run from what it left behind: `python -m tests.live.checker DIR`.

A pure function over the files in DIR, so that whoever doubts a verdict can compute it again. It reads
`submitted.jsonl`, `kills.jsonl`, `provider_calls.jsonl`, the kept log, and where they are there
`poisons.jsonl` and `disturbances.jsonl`; nothing else. docs/results/kill.md explains each defect.

Order is promised within a request, not between requests: a call starts before it ends, the result comes
after the first start, and the job is the one of the first Decision in the log.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from schemas.logdir import LogDirError
from schemas.topics import REQUESTS
from tests.live.checker_calls import OK, Calls, examine
from tests.live.checker_evidence import Evidence, Place, read
from tests.live.kill_schedule import PHASES

COLUMNS = (*PHASES, "starting", "unknown", "exited", "terminated")
_OURS = "KILL"
_SHOWN = 20
_USAGE = 2
_FIRST = "-0-0-0"


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


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict on *evidence*."""
    accepted = [row["request_id"] for row in evidence.submitted if row["acknowledged"]]
    wanted = sorted({*accepted, *evidence.requests})
    calls = examine(evidence)
    defects = {
        "lost": [i for i in wanted if not evidence.results[i]],
        "not_in_log": sorted(i for i in accepted if not evidence.requests[i]),
        "skipped": _skipped(evidence),
        "doubled": calls.doubled,
        "called_again": calls.again,
        "called_beside": calls.beside,
        "unstarted_call": calls.unstarted,
        "two_decisions_acted": sorted(i for i, jobs in evidence.first_jobs.items() if len(set(jobs)) > 1),
        "reordered": _reordered(evidence),
        "phantom": _phantoms(evidence, calls),
        "strange_result": sorted(set(evidence.results) - set(evidence.requests)),
        "keyless_call": calls.keyless,
        "poison_lost": _poisons(evidence),
    }
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.kills:
        kills[row["role"]][row["phase"]] += 1
    return Verdict(defects, _totals(evidence, accepted, calls), dict(kills))


def _skipped(evidence: Evidence) -> list[str]:
    """Name each stage that passed a record over, and the record's place: what it wrote is not in the log.

    Roles that wrote no signal at all are not demanded. What lacks an end is a job's last attempt.
    """
    found = []
    for place, request_id in sorted(evidence.origins.items()):
        if request_id in evidence.dead:
            continue
        done = {f"signals.{role}": origins for role, origins in evidence.signals.items()}
        if evidence.signals or evidence.decided:
            done["decision"] = evidence.decided
        found += [f"{stage}@{_at(place)}" for stage, origins in sorted(done.items()) if place not in origins]
    if evidence.decided:
        found += [f"dispatch@{i}" for i in sorted(evidence.chosen) if i not in evidence.first_jobs]
    for request_id, attempt in sorted(evidence.last_attempt.items()):
        key = f"{request_id}-0-0-{attempt}"
        if key in evidence.started and key not in evidence.ended:
            found.append(f"provider@{key}")
    return found


def _at(place: Place) -> str:
    return f"{REQUESTS}/{place[0]}/{place[1]}"


def _reordered(evidence: Evidence) -> list[str]:
    """Return what breaks the order within a request."""
    found = {key for key in evidence.ended_first if key in evidence.started}
    for request_id, jobs in evidence.first_jobs.items():
        if request_id in evidence.chosen and jobs[0] != evidence.chosen[request_id]:
            found.add(request_id)
        starts = evidence.started.get(f"{request_id}{_FIRST}")
        answered = evidence.answered_at.get(request_id)
        if starts and answered is not None and answered < min(at for at, _ in starts):
            found.add(request_id)
    return sorted(found)


def _phantoms(evidence: Evidence, calls: Calls) -> list[str]:
    """Return what came of nothing: records of an origin that holds another request, calls without a job."""
    strays = {i for place, i in evidence.derived if evidence.origins.get(place) != i}
    return sorted({*calls.phantom, *strays})


def _poisons(evidence: Evidence) -> list[str]:
    """Return the unreadable records of which no dead letter holds the same bytes."""
    letters = {(topic, place, digest) for _, topic, place, digest in evidence.letters}
    return sorted(
        f"{row['topic']}/{row['partition']}/{row['offset']}"
        for row in evidence.poisons
        if row["acknowledged"]
        and (row["topic"], (row["partition"], row["offset"]), row["sha256"]) not in letters
    )


def _totals(evidence: Evidence, accepted: Sequence[str], calls: Calls) -> dict[str, int]:
    kills = [row for row in evidence.kills if row.get("signal", _OURS) == _OURS]
    gaps = sorted(row["time"] for row in kills)
    return {
        "submitted": len(evidence.submitted),
        "accepted": len(accepted),
        "effective_results": sum(bool(evidence.results[i]) for i in accepted),
        "answered_ok": sum(evidence.statuses.get(i, 0) in OK for i in accepted),
        "dead_letters": len(evidence.letters),
        "poisons": sum(bool(row["acknowledged"]) for row in evidence.poisons),
        "kills": len(kills),
        "longest_gap_s": round(max((b - a for a, b in pairwise(gaps)), default=0)),
        "ended_by_themselves": sum(row["phase"] == "exited" for row in evidence.kills),
        "least_in_flight": min((row["in_flight"] for row in kills), default=0),
        "calls": len(evidence.calls),
        "calls_repeated": calls.repeated,
        "answers_disowned": calls.disowned,
        "unanswered": sum(map(len, evidence.unanswered.values())),
        "decisions_collapsed": _extra(evidence.decisions),
        "jobs_collapsed": _extra(evidence.jobs),
        "results_collapsed": _extra(evidence.results),
        "requests_collapsed": _extra(evidence.requests),
    }


def _extra(counts: Counter[str]) -> int:
    return sum(count - 1 for count in counts.values() if count > 1)


def report(verdict: Verdict) -> str:
    """Return the table of kills, the defects and one line of totals."""
    columns = [name for name in COLUMNS if name in PHASES or any(row[name] for row in verdict.kills.values())]
    lines = [f"{'role':<20}" + "".join(f"{phase:>22}" for phase in columns)]
    lines += [
        f"{role:<20}" + "".join(f"{found[p]:>22}" for p in columns)
        for role, found in sorted(verdict.kills.items())
    ]
    for kind, found in verdict.defects.items():
        if found:
            lines.append(f"DEFECT {kind}: {len(found)}: {' '.join(found[:_SHOWN])}")
    lines.append("verdict: " + ("nothing lost, nothing doubled" if verdict.ok else "DEFECTIVE"))
    lines.append(" ".join(f"{name}={count}" for name, count in verdict.totals.items()))
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
