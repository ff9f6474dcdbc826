"""Signal results as files give them, read into observations; and rule trees as the tools print them.

Two forms: the golden cases' (what matched by type, and numbers, errors and metrics by key) and that
of ``policy eval`` (one entry a signal). A key is ``type:name``, what follows the first colon being
the name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agents.engine.tracing import Row, Verdict
from schemas.decision import MATCH, UNKNOWN, UNKNOWN_MATCH
from schemas.signal import Observation, Observations

NAN = math.nan
Json = dict[str, Any]

_FIELDS = frozenset({"matched", "confidence", "value", "error"})


class VectorError(ValueError):
    """A signal vector that cannot be read; the message says where and what is wrong."""


def of_case(signals: Mapping[str, Any]) -> Observations:
    """Return the observations of a golden case: matches in their order, then numbers alone, then errors."""
    confidences, values = signals.get("confidences") or {}, signals.get("values") or {}
    rows: dict[str, Observation] = {}
    for kind, names in (signals.get("matches") or {}).items():
        for name in names:
            key = f"{kind}:{name}"
            rows[key] = _row(key, confidences.get(key), values.get(key), matched=True)
    for key in (*confidences, *values):
        if key not in rows:
            rows[key] = _row(key, confidences.get(key), values.get(key))
    for key, error in (signals.get("errors") or {}).items():
        rows.setdefault(key, _row(key, error=str(error)))
    for key, value in (signals.get("kb_metrics") or {}).items():
        rows[key] = _row(key, value=value)
    return Observations.of(list(rows.values()))


def of_entries(signals: object, where: str) -> Observations:
    """Return the observations of ``{"type:name": {matched, confidence?, value?, error?}}``.

    Raises `VectorError`, which names *where*.
    """
    if not isinstance(signals, Mapping):
        raise VectorError(f"{where}: signals is an object of type:name to what was observed")
    return Observations.of([_entry(key, entry, where) for key, entry in signals.items()])


def _entry(key: object, entry: object, where: str) -> Observation:
    at = f"{where}: signal {key!r}"
    if not isinstance(key, str) or ":" not in key:
        raise VectorError(f"{at} is not of the form type:name")
    if not isinstance(entry, Mapping):
        raise VectorError(f"{at}: expected an object with matched, confidence, value or error")
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        raise VectorError(f"{at} has an unknown key {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    matched = entry.get("matched", False)
    if not isinstance(matched, bool):
        raise VectorError(f"{at}: matched is true or false, not {matched!r}")
    for field in ("confidence", "value"):
        number = entry.get(field)
        finite = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if number is not None and not finite:
            raise VectorError(f"{at}: {field} is a finite number, not {number!r}")
    error = entry.get("error")
    return _row(
        key, entry.get("confidence"), entry.get("value"), matched=matched, error=str(error) if error else ""
    )


def _row(
    key: str,
    confidence: float | None = None,
    value: float | None = None,
    *,
    matched: bool = False,
    error: str = "",
) -> Observation:
    kind, _, name = key.partition(":")
    return Observation(
        kind,
        name,
        "",
        matched=matched and not error,
        confidence=NAN if confidence is None else float(confidence),
        value=NAN if value is None else float(value),
        status="failed" if error else "ok",
        reason=error,
    )


def tree_of(verdict: Verdict, *, unknowns: bool = False) -> Json | None:
    """Return the rule tree of *verdict*: {k: kind, leaf, m: matched, c: confidence, ch: children}.

    With *unknowns* a leaf whose signal is unknown says so.
    """
    stack: list[Json] = []
    root: Json | None = None
    for node, depth in _nodes(verdict.rows, unknowns=unknowns):
        del stack[depth:]
        if stack:
            stack[-1].setdefault("ch", []).append(node)
        else:
            root = node
        stack.append(node)
    return root


def _nodes(rows: Sequence[Row], *, unknowns: bool) -> Iterator[tuple[Json, int]]:
    for kind, leaf, state, confidence, depth in rows:
        matched = state in {MATCH, UNKNOWN_MATCH}
        node: Json = {"k": kind, **({"leaf": leaf} if leaf else {}), "m": matched, "c": confidence}
        yield node | ({"unknown": True} if unknowns and state in {UNKNOWN, UNKNOWN_MATCH} else {}), depth
