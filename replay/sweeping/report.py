"""A sweep as plain values: its points, which of them no other beats, and what is proposed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.policy import Policy
from replay.comparison import Comparison, Sums
from replay.comparison_report import predicted
from replay.sweeping.choosing import Proposal, propose, rates_of
from replay.sweeping.labels import Labels, Sample, sample_of
from replay.sweeping.points import Swept

Json = dict[str, Any]
Floats = NDArray[np.float64]
NO_LABELS = (
    "no labels were given, so false alarms and what is missed are unknown and nothing is proposed: only "
    "shares and cost are known; --labels takes a file of request_id,label"
)
NO_SCORES = "raw scores were not logged for these rows, so they keep what was logged"


@dataclass(frozen=True)
class Judged:
    """The labelled samples by axis, and the proposals (or why there is none)."""

    samples: Sequence[Sample]
    proposals: Sequence[Proposal | str]


def judged(swept: Swept, labels: Labels, most_alarms: float | None, seed: int) -> Judged:
    """Return what *labels* say of each axis of *swept*."""
    ids = np.concatenate(swept.ids) if swept.ids else np.zeros((0, 2), dtype=np.uint64)
    scores = np.concatenate(swept.scores) if swept.scores else np.zeros((0, len(swept.axes)))
    samples = [sample_of(labels, axis.leaf, ids, scores[:, n]) for n, axis in enumerate(swept.axes)]
    found = [
        propose(sample, axis.values, axis.current, most_alarms=most_alarms, seed=seed)
        for sample, axis in zip(samples, swept.axes, strict=True)
    ]
    return Judged(samples, found)


def report(swept: Swept, policy: Policy, compared: Comparison, found: Judged | None) -> Json:
    """Return the sweep as plain values; *found* is None without labels."""
    points = _points(swept, policy, compared, found)
    for point in points:
        point["on_front"] = False
    for point in front_of(points):
        point["on_front"] = True
    return {
        "policy": policy.hash,
        "decisions": swept.decisions,
        "unknown_share": compared.unknown_share,
        "unknown_signals": dict(sorted(compared.lacking.items())),
        "axes": [_axis(swept, number, found) for number in range(len(swept.axes))],
        "points": points,
        "proposal": _proposal(swept, found, points),
        "note": NO_LABELS if found is None else None,
    }


def _points(swept: Swept, policy: Policy, compared: Comparison, found: Judged | None) -> list[Json]:
    rates = (
        None
        if found is None
        else [rates_of(s, axis.values) for s, axis in zip(found.samples, swept.axes, strict=True)]
    )
    quality = {card.name: card.quality_score for card in policy.routing.modelCards if card.quality_score > 0}
    rows = []
    for number, steps in enumerate(swept.points):
        caught = (
            None if rates is None else _mean([float(r.caught[s]) for r, s in zip(rates, steps, strict=True)])
        )
        alarms = (
            None
            if rates is None
            else _mean([float(r.false_alarms[s]) for r, s in zip(rates, steps, strict=True)])
        )
        rows.append(
            {
                "thresholds": {a.leaf: a.values[s] for a, s in zip(swept.axes, steps, strict=True)},
                "current": all(a.values[s] == a.current for a, s in zip(swept.axes, steps, strict=True)),
                "caught": caught,
                "false_alarms": alarms,
                "card_quality": _card_quality(swept, number, quality),
                "cost_usd": _cost(swept, number, policy, compared),
                "shares": _shares(swept, number, by_model=False),
                "models": _shares(swept, number, by_model=True),
            }
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if len(known) == len(values) and known else None


def _shares(swept: Swept, number: int, *, by_model: bool) -> Json:
    counts: dict[str, float] = {}
    for code, outcome in enumerate(swept.outcomes):
        name = outcome.model if by_model else outcome.goes_by
        counts[name] = counts.get(name, 0.0) + float(swept.rows[number, code])
    total = swept.decisions or 1
    return {name: count / total for name, count in sorted(counts.items()) if count}


def _card_quality(swept: Swept, number: int, quality: Mapping[str, float]) -> float | None:
    """Return the mean quality score of the chosen models' cards, None if one that is chosen has none."""
    total = 0.0
    for code, outcome in enumerate(swept.outcomes):
        rows = float(swept.rows[number, code])
        if rows and outcome.chosen not in quality:
            return None
        total += rows * quality.get(outcome.chosen, 0.0)
    return total / swept.decisions if swept.decisions else None


def _cost(swept: Swept, number: int, policy: Policy, compared: Comparison) -> float | None:
    """Return the predicted USD of all decisions, as a comparison predicts it; None if a part is unknown."""
    total = 0.0
    if not any(m.pricing.prompt_per_1m or m.pricing.completion_per_1m for m in policy.models.values()):
        return None
    for code, outcome in enumerate(swept.outcomes):
        rows = int(swept.rows[number, code])
        if not rows:
            continue
        counted, prompt = int(swept.counted[number, code]), float(swept.prompt[number, code])
        sums = Sums(rows=rows, counted=counted, prompt=prompt)
        part = predicted(compared, policy, outcome.goes_by, outcome, sums)
        if part is None:
            return None
        total += part
    return round(total, 9)


_AIMS = (("caught", 1.0), ("card_quality", 1.0), ("false_alarms", -1.0), ("cost_usd", -1.0))


def front_of(points: Sequence[Json]) -> list[Json]:
    """Return those of *points* that no other beats in one thing that is known without losing in another."""
    aims = [(name, sign) for name, sign in _AIMS if all(point[name] is not None for point in points)]
    if len(aims) < 2:  # noqa: PLR2004 - with one aim there is a best, and no front
        return []
    values = np.array([[sign * point[name] for name, sign in aims] for point in points])
    kept = []
    for number, own in enumerate(values):
        beaten = ((values >= own).all(axis=1) & (values > own).any(axis=1)).any()
        if not beaten:
            kept.append(points[number])
    return kept


def _axis(swept: Swept, number: int, found: Judged | None) -> Json:
    axis = swept.axes[number]
    least, most = swept.overlap[number]
    told: Json = {
        "signal": axis.leaf,
        "current": axis.current,
        "values": list(axis.values),
        "matched_share": [
            float(count) / (swept.decisions or 1) for count in swept.matched[number, : len(axis.values)]
        ],
        "without_score": int(swept.unscored[number]),
        "logged_matches_agree_with_one_threshold": bool(least > most),
    }
    if found is not None:
        sample = found.samples[number]
        rates = rates_of(sample, axis.values)
        told |= {
            "labelled": len(sample.label),
            "positives": int(sample.label.sum()),
            "labels_not_in_the_log": sample.missing,
            "labels_without_score": sample.unscored,
            "caught": _listed(rates.caught),
            "false_alarms": _listed(rates.false_alarms),
        }
    return told


def _listed(numbers: Floats) -> list[float | None]:
    return [float(number) if math.isfinite(number) else None for number in numbers]


def _proposal(swept: Swept, found: Judged | None, points: Sequence[Json]) -> Json | None:
    if found is None:
        return None
    rows: Json = {}
    thresholds = {}
    for axis, proposal in zip(swept.axes, found.proposals, strict=True):
        if isinstance(proposal, str):
            rows[axis.leaf] = {"threshold": None, "why_not": proposal}
            thresholds[axis.leaf] = axis.current
        else:
            rows[axis.leaf] = {"current": axis.current, **asdict(proposal)}
            thresholds[axis.leaf] = proposal.threshold.value
    point = next((p for p in points if p["thresholds"] == thresholds), None)
    return {"signals": rows, "thresholds": thresholds, "point": point}


def lines_of(told: Json) -> list[str]:
    """Return the sweep *told* as lines to read."""
    lines = [f"{told['decisions']} decisions, {len(told['points'])} points"]
    for axis in told["axes"]:
        shares = f"{max(axis['matched_share']):.1%} to {min(axis['matched_share']):.1%} of requests"
        span = f"from {axis['values'][0]:g} to {axis['values'][-1]:g}"
        lines.append(f"{axis['signal']}: now {axis['current']:g}; matches {shares} {span}")
        if axis["without_score"]:
            lines.append(f"  {axis['without_score']} rows: {NO_SCORES}")
        if not axis["logged_matches_agree_with_one_threshold"]:
            lines.append("  logged matches agree with no single threshold: several policies may have acted")
    lines += [_point_line(point) for point in told["points"] if point["on_front"]][:20]
    if told["note"]:
        return [*lines, told["note"]]
    return [*lines, *_proposal_lines(told["proposal"])]


def _point_line(point: Json) -> str:
    where = ", ".join(f"{leaf} {value:g}" for leaf, value in point["thresholds"].items())
    known = (("caught", ".1%"), ("false_alarms", ".1%"), ("card_quality", ".3f"), ("cost_usd", ".4f"))
    said = [
        f"{key.replace('_', ' ')} {format(point[key], form)}" for key, form in known if point[key] is not None
    ]
    return f"  front: {where}: {', '.join(said)}"


def _proposal_lines(proposal: Json) -> list[str]:
    lines = []
    for leaf, row in proposal["signals"].items():
        if row["threshold"] is None:
            lines.append(f"{leaf}: nothing is proposed: {row['why_not']}")
            continue
        at = f"{row['threshold']['value']:g} [{row['threshold']['low']:g}, {row['threshold']['high']:g}]"
        new = f"{_share(row['caught'])} with {_share(row['false_alarms'])} false alarms"
        old = f"{_share(row['caught_now'])} with {_share(row['false_alarms_now'])}"
        lines.append(f"{leaf}: {row['current']:g} -> {at} ({row['rule']})")
        lines.append(f"  on the labels that did not choose it, it catches {new}; today's catches {old}")
    return lines


def _share(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"
