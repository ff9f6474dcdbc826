"""What one decision costs, for one request and for a million: CPU time, never wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from agents.engine.columnar import Columnar
from agents.engine.reading import ruleset_of
from agents.engine.scalar import OK, Evaluator
from agents.engine.tracing import SignalUnknown
from agents.engine.tree import Ruleset
from schemas.signal import Observations

DECISIONS, CONDITIONS = 10, 3
SIGNALS = DECISIONS * CONDITIONS
_SHARE = 0.7
_VECTORS = 512
_ROUNDS = 20
_COLUMNAR_ROUNDS = 3
_SEED = 7
_TEXTS = ("type", "name", "label", "status")


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: a ruleset and signals to decide over."""

    ruleset: Ruleset
    vectors: Sequence[Observations]
    name: str


def shipped_case() -> Case:
    """Return ten decisions of three conditions each, over thirty signals of which no two share any."""
    names = [f"signal_{number:02d}" for number in range(SIGNALS)]
    decisions = [
        {
            "name": f"decision_{i}",
            "priority": DECISIONS - i,
            "rules": {
                "operator": "AND",
                "conditions": [
                    {"type": "keyword", "name": name} for name in names[i * CONDITIONS : (i + 1) * CONDITIONS]
                ],
            },
        }
        for i in range(DECISIONS)
    ]
    chance = np.random.default_rng(_SEED)
    vectors = [_drawn(names, chance) for _ in range(_VECTORS)]
    return Case(ruleset_of({"decisions": decisions}), vectors, "10 decisions x 3 conditions, 30 signals")


def _drawn(names: Sequence[str], chance: np.random.Generator) -> Observations:
    matched, confidence = chance.random(len(names)) < _SHARE, chance.random(len(names))
    return Observations(
        type=("keyword",) * len(names),
        name=tuple(names),
        label=("",) * len(names),
        matched=tuple(matched.tolist()),
        confidence=tuple(confidence.tolist()),
        value=(float("nan"),) * len(names),
        status=("ok",) * len(names),
        reason=("",) * len(names),
    )


def measured(case: Case, rows: int) -> dict[str, Any]:
    """Return what *case* costs: microseconds a decision, and decisions a second of columns of *rows*."""
    evaluator = Evaluator(case.ruleset)

    def decided() -> None:
        for seen in case.vectors:
            with suppress(SignalUnknown):
                evaluator.choose(evaluator.vector([seen], absent=OK))

    def traced() -> None:
        for seen in case.vectors:
            vector = evaluator.vector([seen], absent=OK)
            with suppress(SignalUnknown):
                winner = evaluator.choose(vector).rule
                _ = evaluator.explain(vector, winner).trace if winner >= 0 else None

    count = len(case.vectors)
    plain, encoded = column_of(case.vectors, rows), column_of(case.vectors, rows, encoded=True)
    batch = partial(Columnar(case.ruleset).decide, absent_is_unknown=False)
    return {
        "case": case.name,
        "decisions": len(case.ruleset.rules),
        "signals": len(case.vectors[0].type),
        "scalar_us": _least(traced, _ROUNDS) / count * 1e6,
        "scalar_without_trace_us": _least(decided, _ROUNDS) / count * 1e6,
        "rows": rows,
        "columnar_per_s": rows / _least(lambda: batch(plain), _COLUMNAR_ROUNDS),
        "columnar_dictionary_per_s": rows / _least(lambda: batch(encoded), _COLUMNAR_ROUNDS),
    }


def _least(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU seconds of the quickest of *rounds* runs of *work*."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def column_of(vectors: Sequence[Observations], rows: int, *, encoded: bool = False) -> pa.Array:
    """Return a column of *rows* rows: *vectors* over and over, lists of structs as signals are logged.

    Text is plain or, if *encoded*, by dictionary, as Parquet has it.
    """
    repeats = -(-rows // len(vectors))
    widths = np.tile([len(seen.type) for seen in vectors], repeats)[:rows]
    offsets = np.concatenate([[0], np.cumsum(widths)])
    total = int(offsets[-1])
    fields: dict[str, pa.Array] = {}
    for name in _TEXTS:
        texts = pa.array([text for seen in vectors for text in getattr(seen, name)]).dictionary_encode()
        codes = np.tile(texts.indices.to_numpy(), repeats)[:total].astype(np.int16)
        column = pa.DictionaryArray.from_arrays(pa.array(codes), texts.dictionary)
        fields[name] = column if encoded else column.cast(pa.string())
    for name in ("matched", "confidence", "value"):
        numbers = np.array([number for seen in vectors for number in getattr(seen, name)])
        fields[name] = pa.array(np.tile(numbers, repeats)[:total])
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.StructArray.from_arrays(list(fields.values()), list(fields))
    )
