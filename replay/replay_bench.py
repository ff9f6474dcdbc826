"""How fast logged decisions are decided under a new policy: an archive of made-up rows, then the clock.

``python -m replay.replay_bench N`` writes N decisions to a temporary archive and prints, as JSON, what new
processes take that compare them: `seconds` of a whole process, its `peak_mib`, and of its CPU seconds those
up to the first file (`start_cpu_seconds`, imports mostly) and those of the comparison, of which
`decisions_per_cpu_second` is told. That takes in all that `replay.comparison.compare` does: reading and
decompressing Parquet, telling repeats, deciding, drawing models, joining bills, counting; of every thread,
user and system. `matches` is a policy whose winner no confidence can change, `confidences` one where the
highest wins. `stages` are shares of the CPU time of another such process, under a profiler.
"""

from __future__ import annotations

import cProfile
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa

from agents.policy import Policy
from replay.archive_commits import Commit, Identity, Manifest, Stored, file_name, put_commit
from replay.archive_files import Files
from replay.archive_rows import schema_of
from replay.archiver import CHUNK
from replay.remake import load_plugins
from schemas.topics import COMPLETIONS, DECISIONS

PARTITIONS = 4
_SIGNALS = 8
_MIB = 1024
_START_MS, _APART_MS = 1_767_225_600_000, 86
"""The first decision, and the time between two of them: about a million a day."""
_MATCHED = 0.3
_LARGE = 0.25
_RULES = "\n".join(
    f"""    - name: d{n}
      priority: {n}
      rules:
        operator: AND
        conditions:
          - {{type: keyword, name: k{n}}}
          - {{operator: NOT, conditions: [{{type: keyword, name: k{n + 1}}}]}}
      modelRefs: [{{model: large, weight: 1}}, {{model: small, weight: 3}}]
      algorithm: {{type: weighted}}"""
    for n in range(_SIGNALS - 1)
)
_KEYWORDS = "\n".join(f"      - {{name: k{n}, operator: OR, keywords: [w{n}]}}" for n in range(_SIGNALS))
POLICY = f"""
version: v0.3
providers:
  defaults: {{default_model: small}}
  models:
    - name: large
      backend_refs: [{{name: north}}]
      pricing: {{prompt_per_1m: 2.0, completion_per_1m: 8.0}}
    - name: small
      backend_refs: [{{name: north}}]
      pricing: {{prompt_per_1m: 0.2, completion_per_1m: 0.8}}
routing:
  signals:
    keywords:
{_KEYWORDS}
  decisions:
{_RULES}
"""


POLICIES = {"matches": POLICY, "confidences": POLICY.replace("routing:", "routing:\n  strategy: confidence")}


def write(files: Files, count: int) -> None:
    """Write *count* decisions with eight signals and a completion each, as `replay.archive` lays them out."""
    Manifest.make(files, Identity("bench", "bench"), [])
    random = np.random.default_rng(7)
    for chunk, start in enumerate(range(0, count, CHUNK)):
        _chunk(files, _Rows(chunk % PARTITIONS, start, min(CHUNK, count - start)), random)


class _Rows:
    def __init__(self, partition: int, start: int, rows: int) -> None:
        self.partition, self.start, self.rows = partition, start, rows
        self.offsets = np.arange(start, start + rows)


def _chunk(files: Files, part: _Rows, random: np.random.Generator) -> None:
    rows = part.rows
    ids = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), rows, [None, pa.py_buffer(random.bytes(16 * rows))]
    )
    matched = random.random(rows * _SIGNALS) < _MATCHED
    names = pa.DictionaryArray.from_arrays(
        np.tile(np.arange(_SIGNALS, dtype=np.int32), rows), [f"k{n}" for n in range(_SIGNALS)]
    ).cast(pa.string())
    many = rows * _SIGNALS
    fields = {
        "role": _same("heuristics", many),
        "type": _same("keyword", many),
        "name": names,
        "label": _same("", many),
        "matched": pa.array(matched),
        "confidence": pa.array(random.random(many)),
        "value": pa.array(np.full(many, math.nan)),
        "status": _same("ok", many),
        "reason": _same("", many),
    }
    observed = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    nested = pa.ListArray.from_arrays(pa.array(np.arange(0, many + 1, _SIGNALS, dtype=np.int32)), observed)
    chosen = pa.array(np.where(random.random(rows) < _LARGE, "large", "small"))
    decision = pa.array([f"d{n}" for n in random.integers(0, _SIGNALS - 1, rows)])
    core = {"outcome": _same("routed", rows), "decision": decision, "chosen": chosen}
    made = {"request_id": ids, "origin": _origin(part), "core": _core(core, rows), "observations": nested}
    _put(files, part, DECISIONS, made)
    paid = {"model": chosen, "cost_usd": pa.array(random.random(rows) / 1000)}
    paid |= {
        name: pa.array(random.integers(1, 2000, rows)) for name in ("prompt_tokens", "completion_tokens")
    }
    paid |= {"latency_ms": pa.array(random.random(rows) * 1000)}
    paid |= {name: pa.array(np.zeros(rows, dtype=np.int64)) for name in ("step", "branch", "attempt")}
    _put(files, part, COMPLETIONS, {"request_id": ids, "origin": _origin(part), **paid})


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(text, rows)


def _origin(part: _Rows) -> pa.Array:
    return pa.StructArray.from_arrays(
        [pa.array(np.full(part.rows, part.partition)), pa.array(part.offsets)], names=["partition", "offset"]
    )


def _core(given: dict[str, pa.Array], rows: int) -> pa.Array:
    kind = schema_of(DECISIONS).field("core").type
    facts = {"name": _lists("requested_model", rows), "value": _lists("auto", rows)}
    given = given | {
        "failure": _same("", rows),
        "recipe": _same("", rows),
        "policy_hash": _same("0" * 64, rows),
    }
    given["facts"] = pa.StructArray.from_arrays(list(facts.values()), names=list(facts))
    own = [field for field in kind if field.name in given]
    return pa.StructArray.from_arrays([given[field.name] for field in own], names=[f.name for f in own])


def _lists(text: str, rows: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), _same(text, rows))


def _place(part: _Rows) -> dict[str, pa.Array]:
    times = _START_MS + part.offsets * _APART_MS
    return {
        "offset": pa.array(part.offsets),
        "timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("ms", "UTC")),
    }


def _put(files: Files, part: _Rows, kind: str, columns: dict[str, pa.Array]) -> None:
    begin, end = part.start, part.start + part.rows
    name = file_name((kind, part.partition), f"{kind}/date=2026-01-01/tenant=acme", (begin, end))
    files.put_table(name, pa.table(_place(part) | columns))
    files.reveal(name)
    origins = (begin, end - 1) if kind == COMPLETIONS else None
    stored = Stored(name, kind, part.rows, begin, end - 1, origins)
    put_commit(files, Commit(kind, part.partition, begin, end, (stored,)))


def measured(count: int) -> dict[str, Any]:
    """Return what processes take that compare *count* decisions, by policy, and the stages of one."""
    with tempfile.TemporaryDirectory() as folder:
        write(Files(folder), count)
        found: dict[str, Any] = {name: _timed(folder, name) for name in POLICIES}
        _, found["stages"] = _run(folder, "stages")
    return found | {"load_average": os.getloadavg()[0]}


def _timed(folder: str, policy: str) -> dict[str, float]:
    wall, answer = _run(folder, policy)
    rate = answer["decisions"] / answer["compare_cpu_seconds"]
    return {"seconds": wall, **answer, "decisions_per_cpu_second": round(rate)}


def _run(folder: str, what: str) -> tuple[float, dict[str, float]]:
    """Return the wall seconds of a process that reads *folder*, and what it says."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "replay.replay_bench", "--read", folder, what]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - started, json.loads(output)


def _read(folder: str, what: str) -> dict[str, float]:
    from replay.comparison import compare  # noqa: PLC0415 - the process that only writes needs none of it
    from replay.logged import logged_at  # noqa: PLC0415

    load_plugins()
    policy = Policy.parse(POLICIES.get(what, POLICY))
    pa.array([0])  # pyarrow's first array imports pandas, where that is installed
    if what == "stages":
        return stages(folder, policy)
    started, began = time.process_time(), time.perf_counter()
    found = compare(logged_at(folder), policy)
    return {
        "decisions": found.decisions,
        "changed": found.changed,
        "unknown": found.unknown,
        "start_cpu_seconds": started,
        "compare_seconds": time.perf_counter() - began,
        "compare_cpu_seconds": time.process_time() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB,
    }


def stages(folder: str, policy: Policy) -> dict[str, float]:
    """Return the share of each stage in the CPU time of comparing what is in *folder* with *policy*."""
    from agents.engine.columnar import Columnar  # noqa: PLC0415 - as above
    from replay.bills import Bills  # noqa: PLC0415
    from replay.comparison import compare  # noqa: PLC0415
    from replay.logged import ArchivedLog, logged_at  # noqa: PLC0415
    from replay.outcomes import Decider  # noqa: PLC0415
    from replay.repeats import firsts  # noqa: PLC0415

    profile = cProfile.Profile(time.process_time)
    profile.runcall(compare, logged_at(folder), policy)
    profile.create_stats()
    spent = {entry.code: entry.totaltime for entry in profile.getstats()}
    read, told, billed, won, decided, whole = (
        spent[each.__code__]
        for each in (ArchivedLog.batches, firsts, Bills.of, Columnar.winners, Decider.decide, compare)
    )
    parts = {
        "read decisions": read,
        "tell repeats": told,
        "decide who wins": won,
        "draw models, find unknown signals": decided - won,
        "read and join bills": billed,
        "the rest, mostly counting": whole - read - told - decided - billed,
    }
    return {name: round(part / whole, 3) for name, part in parts.items()}


def main(words: list[str]) -> None:
    """Measure as many decisions as *words* say, a million by default."""
    if words[:1] == ["--read"]:
        sys.stdout.write(json.dumps(_read(words[1], words[2])))
        return
    sys.stdout.write(json.dumps(measured(int(words[0]) if words else 1_000_000), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
