"""How fast logged decisions are decided under a new policy: an archive of made-up rows, then the clock.

``python -m replay.replay_bench N`` writes N decisions to a temporary archive and prints, as JSON, the
seconds of a new process that compares them (its start and the reading of Parquet included), and its
peak memory.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time

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


def measured(count: int) -> dict[str, float]:
    """Return seconds, CPU seconds and peak MiB of a process that compares *count* decisions."""
    with tempfile.TemporaryDirectory() as folder:
        write(Files(folder), count)
        started = time.perf_counter()
        command = [sys.executable, "-m", "replay.replay_bench", "--read", folder]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        wall = time.perf_counter() - started
    return {"seconds": wall, **json.loads(output), "load_average": os.getloadavg()[0]}


def _read(folder: str) -> None:
    from replay.comparison import compare  # noqa: PLC0415 - the process that only writes needs none of it
    from replay.logged import logged_at  # noqa: PLC0415

    load_plugins()
    started = time.perf_counter()
    found = compare(logged_at(folder), Policy.parse(POLICY))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    answer = {
        "decisions": found.decisions,
        "changed": found.changed,
        "unknown": found.unknown,
        "compare_seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / _MIB,
    }
    sys.stdout.write(json.dumps(answer))


def main(words: list[str]) -> None:
    """Measure as many decisions as *words* say, a million by default."""
    if words[:1] == ["--read"]:
        _read(words[1])
        return
    sys.stdout.write(json.dumps(measured(int(words[0]) if words else 1_000_000), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
