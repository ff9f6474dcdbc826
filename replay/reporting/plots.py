"""What the plots of an evaluation show, as plain values: fronts, weights, reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from replay.bandit import BanditLog, Floats, Ints
from replay.estimators import Model
from replay.evaluation import DEFAULT, Evaluation, Method, evaluate
from replay.intervals import Interval

Json = dict[str, Any]
_BINS = 10
_MOST_VALUES = 12
_TAIL_POINTS = 60
_MOST_SINGLES = 12
_Z = 1.959963984540054


@dataclass(frozen=True)
class Judged:
    """A table's log with its evaluation, and what else of a row is known.

    `cost` (n) is what the taken action cost in USD, NaN where unknown; `outcomes` (n, k) is every action's
    reward, where a bench knows them all.
    """

    log: BanditLog
    found: Evaluation
    method: Method
    model: Model
    observation_known: bool
    cost: Floats | None = None
    outcomes: Floats | None = None


def front_of(judged: Judged) -> Json:
    """Return cost and quality of both policies, of each model for all, of a random choice, and the oracle."""
    log, found = judged.log, judged.found
    points = [
        _point("target policy", "target", found.values[DEFAULT], enough=_enough(found)),
        _point("logging policy", "logging", found.logging_value, enough=True),
    ]
    points[0]["cost"] = _cost(judged, log.target)
    points[1]["cost"] = _paid(judged)
    singles = [_single(judged, action) for action in _commonest(log)]
    points += [_named(judged, name, "single", odds) for name, odds in singles]
    points.append(_named(judged, "random", "random", np.full_like(log.target, 1.0 / len(log.actions))))
    if judged.outcomes is not None:
        points += _exact(judged.outcomes, log.actions, points)
    best = max(
        (p for p in points if p["kind"] == "single" and p["quality"] is not None and p["enough"]),
        key=lambda point: float(point["quality"]),
        default=None,
    )
    return {
        "points": points,
        "cost_known": sum(point["cost"] is not None for point in points) > 1,
        "best_single": None if best is None else best["name"],
        "oracle": next((p["quality"] for p in points if p["kind"] == "oracle"), None),
        "oracle_note": None if judged.outcomes is not None else ORACLE_UNKNOWN,
        "singles_left_out": max(len(log.actions) - _MOST_SINGLES, 0),
    }


ORACLE_UNKNOWN = "unknown: that takes every model's answer to each request, and a log holds one"


def _commonest(log: BanditLog) -> Ints:
    counts = np.bincount(log.taken, minlength=len(log.actions))
    return np.argsort(-counts, kind="stable")[:_MOST_SINGLES]


def _single(judged: Judged, action: int) -> tuple[str, Floats]:
    odds = np.zeros_like(judged.log.target)
    odds[:, action] = 1.0
    return judged.log.actions[action], odds


def _named(judged: Judged, name: str, kind: str, odds: Floats) -> Json:
    """Return the point of the policy with the probabilities *odds* (n, k), estimated on the same rows."""
    found = _valued(judged, odds)
    interval = Interval(math.nan, math.nan, math.nan) if found is None else found.values[DEFAULT]
    point = _point(name, kind, interval, enough=found is not None and _enough(found))
    point["cost"] = _cost(judged, odds)
    return point


def _valued(judged: Judged, odds: Floats) -> Evaluation | None:
    log = replace(judged.log, target=odds)
    try:
        return evaluate(log, judged.method, model=judged.model, observation_known=judged.observation_known)
    except ValueError:
        return None


def _enough(found: Evaluation) -> bool:
    """Tell whether nothing refuses a verdict: a difference of about nothing is known well enough."""
    return not found.verdict.refusals


def _point(name: str, kind: str, value: Interval, *, enough: bool) -> Json:
    ends = {"quality": value.value, "low": value.low, "high": value.high}
    return {
        "name": name,
        "kind": kind,
        "cost": None,
        **{k: number(v) for k, v in ends.items()},
        "enough": enough,
    }


def number(value: float | None) -> float | None:
    """Return *value*, None if it is no finite number."""
    return None if value is None or not math.isfinite(value) else float(value)


def _paid(judged: Judged) -> float | None:
    if judged.cost is None or not np.isfinite(judged.cost).any():
        return None
    return float(np.nanmean(judged.cost))


def _cost(judged: Judged, odds: Floats) -> float | None:
    """Return the self-normalised mean cost under *odds*; None if nothing that was taken has weight."""
    if judged.cost is None:
        return None
    log, known = judged.log, np.isfinite(judged.cost)
    weight = np.where(known, odds[np.arange(log.n), log.taken] / log.propensity, 0.0)
    total = float(weight.sum())
    return float((weight * np.where(known, judged.cost, 0.0)).sum()) / total if total > 0.0 else None


def _exact(outcomes: Floats, actions: Sequence[str], points: list[Json]) -> list[Json]:
    """Replace what was estimated by what the outcomes say, and return the oracle's point."""
    means = dict(zip(actions, outcomes.mean(axis=0), strict=True))
    for point in points:
        if point["kind"] in {"single", "random"}:
            exact = float(means.get(point["name"], outcomes.mean()))
            point.update(quality=exact, low=exact, high=exact, enough=True)
    best = float(outcomes.max(axis=1).mean())
    return [
        {
            "name": "oracle",
            "kind": "oracle",
            "cost": None,
            "quality": best,
            "low": best,
            "high": best,
            "enough": True,
        }
    ]


def forest_of(found: Evaluation) -> list[Json]:
    """Return the difference of every estimator."""
    return [
        {
            "name": name,
            "value": number(interval.value),
            "low": number(interval.low),
            "high": number(interval.high),
            "default": name == DEFAULT,
        }
        for name, interval in found.differences.items()
    ]


def weights_of(log: BanditLog) -> Json:
    """Return the tail of the weights: pairs of a weight and the share of rows that have at least that."""
    ordered = np.sort(log.weight)[::-1]
    n = len(ordered)
    ranks = np.unique(np.geomspace(1, n, num=min(n, _TAIL_POINTS)).astype(int))
    squares = ordered**2
    top = max(n // 100, 1)
    total = float(squares.sum())
    return {
        "tail": [[float(ordered[rank - 1]), rank / n] for rank in ranks[::-1]],
        "largest": float(ordered[0]) if n else None,
        "zero_share": float((ordered <= 0.0).mean()),
        "squares_in_top_percent": float(squares[:top].sum()) / total if total > 0.0 else None,
    }


def reliability_of(judged: Judged) -> Json:
    """Return predicted and observed by tenths of the predictions, of rewards and of logged propensities."""
    log = judged.log
    shown = log.observed
    rewards = _binned(judged.model.of_taken(log)[shown], log.reward[shown], log.inverse_observation[shown])
    return {"rewards": rewards, "propensities": _propensities(log)}


def _propensities(log: BanditLog) -> list[Json]:
    """Return, action by action, stated propensities against how often that action was taken.

    Over all actions at once those of a row sum to one on both sides, so that a uniform policy would agree
    with whatever was taken. `half` is what chance leaves where the statement is right.
    """
    rows: list[Json] = []
    if log.logged is None:
        return rows
    for number_, action in enumerate(log.actions):
        stated = log.logged[:, number_]
        open_ = (stated > 0.0) & (stated < 1.0)
        took = (log.taken[open_] == number_).astype(np.float64)
        for row in _binned(stated[open_], took, np.ones(len(took))):
            p = row["predicted"]
            rows.append({**row, "action": action, "half": _Z * math.sqrt(p * (1.0 - p) / row["rows"])})
    return rows


def _binned(predicted: Floats, observed: Floats, weight: Floats) -> list[Json]:
    """Return the means of bins that hold as many rows each, with the half-width of the observed mean."""
    if not len(predicted):
        return []
    place = _places(predicted)
    rows = []
    for number_ in np.unique(place):
        inside = place == number_
        share = weight[inside] / weight[inside].sum()
        mean = float((share * observed[inside]).sum())
        error = math.sqrt(float((share**2 * (observed[inside] - mean) ** 2).sum()))
        rows.append(
            {
                "predicted": float((share * predicted[inside]).sum()),
                "observed": mean,
                "half": _Z * error,
                "rows": int(inside.sum()),
            }
        )
    return rows


def _places(predicted: Floats) -> Ints:
    """Return the bin of each of *predicted*: one for each value where there are few, else by tenths."""
    values, own = np.unique(np.round(predicted, 12), return_inverse=True)
    if len(values) <= _MOST_VALUES:
        return own.astype(np.int64)
    edges = np.unique(np.quantile(predicted, np.linspace(0.0, 1.0, _BINS + 1)))
    return np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))


def table_flow(log: BanditLog) -> list[Json]:
    """Return how much of what each model took each would take under the target, in requests."""
    mass = np.zeros((len(log.actions), len(log.actions)))
    np.add.at(mass, log.taken, log.target)
    return [
        {"from": log.actions[i], "to": log.actions[j], "count": float(mass[i, j])}
        for i, j in zip(*np.nonzero(mass > 0.0), strict=True)
    ]


def matrix_flow(rows: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the model matrix of a comparison as a flow."""
    return [{"from": row["from"], "to": row["to"], "count": float(row["count"])} for row in rows]
