"""A plan as plain values and as lines to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agents.policy import Policy
from replay.comparison import Comparison
from replay.plan import (
    EPSILONS,
    LEVEL,
    POWER,
    Option,
    Terms,
    Traffic,
    changed_share,
    option,
    pairs,
    unsupported_share,
)
from replay.plan_log import Logs, logs_of

Json = dict[str, Any]
_FORMULA = (
    "rows = (z_0.975 + z_0.8)^2 (design variance E[chi2] / observed + D^2 (1/changed - 1)) / D^2, "
    "D = detect TV(target, logging with exploring) / TV(target, logging without)"
)
_ASSUMED = (0.05, 0.1, 0.3)


def planned(found: Comparison, current: Policy, new: Policy, terms: Terms) -> Json:
    """Return the plan for *new* over traffic such as that of *found*, which *current* decided."""
    logs = logs_of(found, current, new)
    per_day = terms.per_day or logs.per_day
    answer = _answer(logs.traffic, terms, per_day, logs)
    listed = [asdict(each) for each in logs.unreachable]
    return {
        "policy": new.hash,
        "current": current.hash,
        "other_policies": len(found.hashes) - 1,
        "decisions": found.decisions,
        "days_logged": logs.days,
        "per_day": per_day,
        "unknown_share": found.unknown_share,
        **answer,
        "unreachable": listed,
        "exploration": _section(logs, answer["recommended"], per_day),
    }


def assumed(new: Policy, terms: Terms) -> Json:
    """Return a plan for *new* without a log: for the share that is said to change, or for several."""
    per_day = terms.per_day or None
    shares = (terms.changed,) if terms.changed else _ASSUMED
    plans = [_answer(_made_up(share), terms, per_day, None) for share in shares]
    return {"policy": new.hash, "current": None, "per_day": per_day, "assumed": plans}


def _made_up(share: float) -> tuple[Traffic, ...]:
    """Return traffic of which *share* goes from one model to another; only that share explores."""
    now = {"incumbent": 1.0}
    return (
        Traffic("changed", share, now, {"candidate": 1.0}, ("candidate",)),
        Traffic("unchanged", 1.0 - share, now, now, ()),
    )


def _answer(
    traffic: Sequence[Traffic],
    terms: Terms,
    per_day: float | None,
    logs: Logs | None,
) -> Json:
    changed = changed_share(traffic)
    options = [_option(each, per_day, logs) for e in EPSILONS if (each := option(traffic, e, terms.wanted))]
    in_time = [each for each in options if each["days"] is not None and each["days"] <= terms.within_days]
    count = pairs(changed, terms.wanted.detect) if changed > 0.0 else 0
    return {
        "detect": terms.wanted.detect,
        "level": LEVEL,
        "power": POWER,
        "changed_share": changed,
        "unsupported_share": unsupported_share(traffic),
        "options": options,
        "recommended": in_time[0] if in_time else None,
        "pairs": count,
        "pairs_usd": count * terms.pair_usd,
        "assumptions": asdict(terms.wanted) | {"within_days": terms.within_days, "rows": _FORMULA},
    }


def _option(found: Option, per_day: float | None, logs: Logs | None) -> Json:
    """Return *found* with its days, what it costs net (`usd`), and what a day is charged to the cap."""
    days = found.rows / per_day if per_day else None
    usd = None if logs is None else logs.extra_usd(found.epsilon, found.rows)
    daily = None if logs is None or per_day is None else logs.charged_usd(found.epsilon, 1) * per_day
    return asdict(found) | {"days": days, "usd": usd, "usd_per_day": daily}


def _section(logs: Logs, chosen: Json | None, per_day: float | None) -> Json | None:
    """Return the section of a policy that explores as planned, its cap twice what is expected of it."""
    if chosen is None:
        return None
    tried = {each.decision: each.explored for each in logs.traffic if each.explored}
    cap = 2.0 * (logs.charged_usd(chosen["epsilon"], 1) * (per_day or 0.0))
    decisions = {
        name: {"epsilon": chosen["epsilon"], "candidates": list(models)}
        for name, models in sorted(tried.items())
    }
    return {"max_extra_usd_per_day": _rounded_up(max(cap, 0.01)), "decisions": decisions}


def _rounded_up(usd: float) -> float:
    return math.ceil(usd * 100.0) / 100.0


def lines_of(answer: Json) -> list[str]:
    """Return the plan as lines to read."""
    if "assumed" in answer:
        return [line for plan in answer["assumed"] for line in _plan_lines(plan)]
    pace = f"{answer['per_day']:,.0f} a day" if answer["per_day"] else "no pace, give --per-day"
    head = f"{answer['decisions']:,} decisions over {answer['days_logged']:.2f} days ({pace})"
    lines = [head, *_plan_lines(answer)]
    lines += [
        f"not reachable by exploring: {each['share']:.2%} of traffic, "
        f"{each['decision']} -> {each['model']}: {each['why']}"
        for each in answer["unreachable"]
    ]
    if answer["exploration"] is not None:
        lines += ["to explore so, add to the active policy:", "exploration:"]
        lines.append(f"  max_extra_usd_per_day: {answer['exploration']['max_extra_usd_per_day']}")
        lines.append("  decisions:")
        for name, each in answer["exploration"]["decisions"].items():
            listed = ", ".join(each["candidates"])
            lines.append(f"    {name}: {{epsilon: {each['epsilon']}, candidates: [{listed}]}}")
    return lines


def _plan_lines(plan: Json) -> list[str]:
    changed = plan["changed_share"]
    if changed <= 0.0:
        return [f"{changed:.2%} of traffic would go to another model: there is nothing to judge"]
    aim = f"to detect {plan['detect']:g} (95 % interval, power {plan['power']:.0%}):"
    lines = [f"{changed:.2%} of traffic would go to another model; {aim}"]
    for each in plan["options"]:
        days = "" if each["days"] is None else f", {each['days']:,.1f} days"
        usd = "" if each["usd"] is None else f", {each['usd']:+,.2f} USD"
        chosen = "  <- the least that is in time" if each is plan["recommended"] else ""
        size = f"{each['rows']:>12,} requests{days}, {each['explored']:,} of them explored{usd}"
        lines.append(f"  epsilon {each['epsilon']:<4g}: {size}{chosen}")
    if not plan["options"]:
        lines.append("  no exploring of the decisions' own candidates can tell; see what is not reachable")
    lines.append(f"  or {plan['pairs']:,} judged pairs of changed requests ({plan['pairs_usd']:,.2f} USD)")
    return lines
