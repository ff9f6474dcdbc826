"""What a demo found, as numbers and as tables: made from the results and the kept log alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from replay.view import LogView
from schemas.codec import Codec
from schemas.completion import Completion, Result
from schemas.decision import Decision
from schemas.topics import COMPLETIONS, DECISIONS

_OK = range(200, 300)


@dataclass(frozen=True, slots=True)
class Group:
    """Requests that went the same way; latencies in ms from admission to result, cost in USD."""

    name: str
    requests: int
    errors: int
    cost_usd: float
    p50_ms: int
    p99_ms: int
    parts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it: *decisions* in the order of their share; calls are what providers took, in ms."""

    total: Group
    decisions: tuple[Group, ...]
    models: tuple[Group, ...]
    call_p50_ms: int
    call_p99_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def percentile(values: Sequence[float], share: float) -> int:
    """Return the nearest-rank percentile of *values*, 0 of none."""
    ordered = sorted(values)
    return round(ordered[max(math.ceil(share * len(ordered)) - 1, 0)]) if ordered else 0


def figures(results: Iterable[Result], view: LogView) -> Figures:
    """Return the figures of *results*; *view* tells the decisions' outcomes and the calls."""
    codec = Codec(view.schemas().values())
    outcomes = {d.request_id: d.core.outcome for d in first_decisions(view, codec)}
    by_decision: dict[str, list[Result]] = defaultdict(list)
    by_model: dict[str, list[Result]] = defaultdict(list)
    everything = list(results)
    for result in everything:
        by_decision[result.decision or f"({outcomes.get(result.request_id, 'none')})"].append(result)
        by_model[f"{result.model} at {result.provider}" if result.model else "(none)"].append(result)
    calls = [
        record.latency_ms
        for envelope in view.read(COMPLETIONS)
        if isinstance(record := codec.decode(envelope.value), Completion)
    ]
    return Figures(
        total=_group("total", everything, "model"),
        decisions=_groups(by_decision, "model"),
        models=_groups(by_model, "decision"),
        call_p50_ms=percentile(calls, 0.5),
        call_p99_ms=percentile(calls, 0.99),
    )


def first_decisions(view: LogView, codec: Codec) -> Iterable[Decision]:
    """Yield the first Decision of each request, which is the one that counts."""
    seen: set[bytes] = set()
    for envelope in view.read(DECISIONS):
        record = codec.decode(envelope.value)
        if isinstance(record, Decision) and record.request_id not in seen:
            seen.add(record.request_id)
            yield record


def worth_explaining(view: LogView, order: Sequence[bytes]) -> bytes | None:
    """Return the request that shows most: drawn among models, then the larger rule; the first in *order*."""
    place = {request_id: number for number, request_id in enumerate(order)}
    known = [d for d in first_decisions(view, Codec(view.schemas().values())) if d.request_id in place]
    if not known:
        return None

    def rank(decision: Decision) -> tuple[int, int, int]:
        core = decision.core
        drawn = sum(propensity > 0 for propensity in core.propensities)
        return drawn, len(core.rule.leaf), -place[decision.request_id]

    return max(known, key=rank).request_id


def tables(found: Figures) -> tuple[Table, Table]:
    """Return the figures by decision and by model."""
    decisions = _table("decision", "models")
    for group in (*found.decisions, found.total):
        name = group.name
        style = "bold" if group is found.total else ""
        parts = "" if group is found.total else _parts(group)
        decisions.add_row(name, *_cells(group), parts, style=style)
    models = _table("model", "decisions")
    for group in found.models:
        models.add_row(group.name, *_cells(group), _parts(group))
    return decisions, models


def _table(first: str, last: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in ("requests", "errors", "cost USD", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column(last, overflow="fold")
    return table


def _cells(group: Group) -> tuple[str, ...]:
    numbers = (group.requests, group.errors or "-", f"{group.cost_usd:.4f}", group.p50_ms, group.p99_ms)
    return tuple(map(str, numbers))


def _parts(group: Group) -> str:
    return ", ".join(f"{name} {count}" for name, count in group.parts.items())


def _groups(by_name: dict[str, list[Result]], part: str) -> tuple[Group, ...]:
    groups = [_group(name, results, part) for name, results in by_name.items()]
    return tuple(sorted(groups, key=lambda group: (-group.requests, group.name)))


def _group(name: str, results: Sequence[Result], part: str) -> Group:
    latencies = [result.finished_at - result.accepted_at for result in results]
    parts = Counter(getattr(result, part) or "(none)" for result in results)
    costs = [result.cost_usd for result in results if not math.isnan(result.cost_usd)]
    return Group(
        name=name,
        requests=len(results),
        errors=sum(result.status not in _OK for result in results),
        cost_usd=math.fsum(costs),
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        parts=dict(parts.most_common()),
    )
