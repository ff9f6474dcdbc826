"""The numbers of a report, in the order in which it tells them: the verdict, then what stands behind it.

What is not known stays in the document as None with a note: a report that leaves it out would look complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from replay.comparison_cli import UNKNOWN_LIMIT
from replay.reporting.plots import (
    Judged,
    forest_of,
    front_of,
    matrix_flow,
    reliability_of,
    table_flow,
    weights_of,
)

Json = dict[str, Any]
NOT_JUDGED = "Nothing here says whether the answers would be better"
LATENCY = (
    "Latency under shared capacity is not estimated by weighting: a policy that fills a provider changes it "
    "for requests that it does not route otherwise."
)


@dataclass(frozen=True)
class Sources:
    """What a report is made of; each part is None where it was not asked for.

    `comparison` is `replay.comparison_report.report`, `reproduction` `replay.decide.Report.as_json`.
    `evaluation` is what `replay evaluate --json` prints, for `judged`.
    """

    identity: Json
    command: Sequence[str]
    integrity: Json | None = None
    reproduction: Json | None = None
    comparison: Json | None = None
    evaluation: Json | None = None
    judged: Judged | None = None
    notes: list[str] = field(default_factory=list)


def document_of(sources: Sources) -> Json:
    """Return the report of *sources* as plain values; `run` names it by all of it but the command."""
    told: Json = {
        "verdict": _verdict(sources),
        "identity": sources.identity,
        "integrity": sources.integrity,
        "reproduction": sources.reproduction,
        "disagreement": _disagreement(sources.comparison),
        "cost": _cost(sources),
        "quality": sources.evaluation,
        "latency": {"estimate": (sources.evaluation or {}).get("latency"), "note": LATENCY},
        "plots": _plots(sources),
        "notes": sources.notes,
    }
    plain = orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
    run = hashlib.sha256(plain).hexdigest()[:16]
    return {"run": run, **orjson.loads(plain), "command": list(sources.command)}


def _verdict(sources: Sources) -> Json:
    """Return the verdict in a word and in sentences; what must stop a reader comes first."""
    warnings = []
    reproduction = sources.reproduction
    if reproduction is not None and reproduction["reproduced"] != reproduction["decisions"]:
        warnings.append(
            f"Stop: only {reproduction['reproduced']:,} of {reproduction['decisions']:,} logged decisions "
            "are reproduced by the logged policy, so what follows cannot be relied on."
        )
    comparison = sources.comparison
    if comparison is not None and comparison["unknown_share"] > UNKNOWN_LIMIT:
        share, names = comparison["unknown_share"], ", ".join(list(comparison["unknown_signals"])[:5])
        warnings.append(
            f"{share:.1%} of decisions need signals that the log does not hold: {names}. "
            "They are taken as unknown, so what would change is not known for these requests."
        )
    flips = [] if comparison is None else comparison["safety_flips"]
    if flips:
        count = sum(row["count"] for row in flips)
        warnings.append(f"{count:,} requests gain or lose a decision that is marked as safety.")
    if sources.evaluation is not None:
        word, sentence = sources.evaluation["verdict"], sources.evaluation["sentence"]
    else:
        word, sentence = "not_judged", f"{_changes(comparison)} {NOT_JUDGED}: no rewards were given."
    return {"word": word, "sentence": sentence, "warnings": warnings, "changes": _changes(comparison)}


def _changes(comparison: Json | None) -> str:
    if comparison is None:
        return ""
    return (
        f"{comparison['changed']:,} of {comparison['decisions']:,} logged decisions "
        f"({comparison['changed_share']:.1%}) would be another under the target policy."
    )


def _disagreement(comparison: Json | None) -> Json | None:
    if comparison is None:
        return None
    kept = ("decisions", "changed", "changed_share", "unknown_share", "unknown_signals", "safety_flips")
    more = ("models", "decision_matrix", "rules", "tenants")
    return {name: comparison[name] for name in (*kept, *more)}


def _cost(sources: Sources) -> Json:
    evaluation = sources.evaluation or {}
    return {
        "compared": None if sources.comparison is None else sources.comparison["cost"],
        "estimate": evaluation.get("cost"),
    }


def _plots(sources: Sources) -> Json:
    judged = sources.judged
    plots: Json = {"front": None, "forest": None, "weights": None, "reliability": None, "flow": None}
    if judged is not None:
        plots["front"] = front_of(judged)
        plots["forest"] = forest_of(judged.found)
        plots["weights"] = weights_of(judged.log.supported())
        plots["reliability"] = reliability_of(judged)
        plots["flow"] = table_flow(judged.log)
    if sources.comparison is not None:
        plots["flow"] = matrix_flow(sources.comparison["models"])
    return plots


def facts_of(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return *mapping* as pairs of a label and a value to read."""
    rows = []
    for name, value in mapping.items():
        share = isinstance(value, float) and "share" in name
        rows.append((name.replace("_", " "), f"{value:.2%}" if share else shown(value)))
    return rows


def shown(value: object) -> str:
    """Return *value* as a reader wants it: numbers short, lists joined, None as unknown."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(inner) for inner in value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - four digits
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return {None: "unknown", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload, no-any-return]
