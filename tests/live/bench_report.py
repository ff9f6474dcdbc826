"""The bench's tables: what was measured, per request, as text for people and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.live.bench_load import Measured
from tests.live.bench_stack import BESIDE, CLIENT


@dataclass(frozen=True, slots=True)
class Outcome:
    """All phases of one code tree with one classifier."""

    code: str
    classifier: str
    batch: Measured
    idle: Measured
    loop: Measured | None


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the *share* quantile of *ordered*, the nearest rank; NaN if there is nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def own(cpu: Mapping[str, int]) -> int:
    """Return the CPU of Signalbox's own processes, the submitting client included."""
    return sum(used for role, used in cpu.items() if role not in BESIDE)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the numbers of *outcome*, CPU in microseconds per request, latencies in ms."""
    batch, loop = outcome.batch, outcome.loop
    found: dict[str, Any] = {
        "code": outcome.code,
        "classifier": outcome.classifier,
        "requests": batch.requests,
        "failed": batch.failed,
        "load_average": round(batch.load, 1),
        "requests_per_s": round(batch.requests / batch.seconds, 1),
        "messages_per_request": round(sum(batch.records.values()) / batch.requests, 2),
        "cpu_us_per_request": {role: used // batch.requests for role, used in batch.cpu.items()},
        "own_cpu_us_per_request": own(batch.cpu) // batch.requests,
        "idle_cpu_us_per_s": {
            role: int(used / outcome.idle.seconds) for role, used in outcome.idle.cpu.items()
        },
        "records_per_request": {t: round(n / batch.requests, 3) for t, n in batch.records.items()},
    }
    if loop is not None:
        found["open_loop"] = {
            "requests": loop.requests,
            "failed": loop.failed,
            "load_average": round(loop.load, 1),
            "latency_ms": {
                f"p{int(s * 100)}": round(quantile(loop.latency_ms, s), 1) for s in (0.5, 0.9, 0.99)
            },
            "own_cpu_us_per_request": own(loop.cpu) // loop.requests,
            "cpu_us_per_request": {role: used // loop.requests for role, used in loop.cpu.items()},
            "hops_ms": {
                topic: [round(quantile(times, s), 1) for s in (0.5, 0.99)]
                for topic, times in loop.hops_ms.items()
            },
        }
    return found


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables of *found*, one column for each outcome."""
    names = [f"{one['classifier']}, {one['code']}" for one in found]
    rows: list[tuple[str, list[Any]]] = [
        ("requests", [one["requests"] for one in found]),
        ("failed", [one["failed"] for one in found]),
        ("load average at the end", [one["load_average"] for one in found]),
        ("requests/s", [one["requests_per_s"] for one in found]),
        ("messages per request", [one["messages_per_request"] for one in found]),
        ("**own CPU per request, us**", [one["own_cpu_us_per_request"] for one in found]),
    ]
    roles = found[0]["cpu_us_per_request"]
    inside = [CLIENT, *(role for role in roles if role not in (*BESIDE, CLIENT))]
    for role in (*inside, *BESIDE):
        label = f"{role} ({'beside' if role in BESIDE else 'CPU us'})"
        rows.append((label, [one["cpu_us_per_request"].get(role, "-") for one in found]))
    text = _table("batch, as fast as it goes", names, rows)
    loops = [one.get("open_loop") for one in found]
    if all(loops):
        known = [loop for loop in loops if loop is not None]
        rows = [
            (f"added latency {p}, ms", [loop["latency_ms"][p] for loop in known])
            for p in known[0]["latency_ms"]
        ]
        rows += [("own CPU per request, us", [loop["own_cpu_us_per_request"] for loop in known])]
        rows += [
            (
                f"{role} ({'beside' if role in BESIDE else 'CPU us'})",
                [loop["cpu_us_per_request"][role] for loop in known],
            )
            for role in known[0]["cpu_us_per_request"]
        ]
        rows += [("failed", [loop["failed"] for loop in known])]
        rows += [("load average at the end", [loop["load_average"] for loop in known])]
        for topic in sorted(known[0]["hops_ms"], key=lambda t: known[0]["hops_ms"][t][0]):
            values = ["{} / {}".format(*loop["hops_ms"].get(topic, ("-", "-"))) for loop in known]
            rows.append((f"record in `{topic}` after p50 / p99, ms", values))
        text += "\n" + _table("open loop", names, rows)
    idle = [
        (role, [one["idle_cpu_us_per_s"].get(role, "-") for one in found])
        for role in found[0]["idle_cpu_us_per_s"]
    ]
    text += "\n" + _table("idle, CPU us per second", names, idle)
    records = [
        (f"`{t}`", [one["records_per_request"].get(t, 0) for one in found])
        for t in found[0]["records_per_request"]
    ]
    return text + "\n" + _table("records per request", names, records)


def _table(title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> str:
    lines = [f"| {title} | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    lines += [f"| {label} | {' | '.join(str(value) for value in values)} |" for label, values in rows]
    return "\n".join(lines) + "\n"
