"""A comparison as plain values, as lines to read, and as a comment on a pull request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from agents.policy import Policy
from replay.comparison import SAMPLES, Cell, Comparison, Sums
from replay.exploring import planned
from replay.outcomes import Outcome

Json = dict[str, Any]
_SHOWN = 10
_PREDICTION = "mean tokens of the model in the logged decision (else of the model, else of all), new prices"
Label = Callable[[Outcome], str]


def report(found: Comparison, new: Policy, old: Policy | None = None) -> Json:
    """Return *found* as plain values; *old* is None where the log itself is the one side."""
    changed = found.changed
    return {
        "from": old.hash if old is not None else "log",
        "to": new.hash,
        "decisions": found.decisions,
        "reproduced": found.decisions - changed,
        "changed": changed,
        "changed_share": _share(changed, found.decisions),
        "unknown": found.unknown,
        "unknown_share": found.unknown_share,
        "unknown_signals": dict(sorted(found.lacking.items())),
        "repeats_collapsed": found.repeats,
        "never_decided": found.undecided,
        "dropped": {table: dict(row) for table, row in found.dropped.items()},
        "models": _matrix(found.cells, lambda outcome: outcome.model),
        "decision_matrix": _matrix(found.cells, lambda outcome: outcome.goes_by),
        "rules": _rules(found.cells),
        "tenants": _tenants(found.cells),
        "cost": _cost(found, new, old),
        "safety_flips": safety_flips(found, new, old),
        "exploration": planned(new, _by_decision(found)),
    }


def _by_decision(found: Comparison) -> Counter[str]:
    """Return how many requests each decision of the other side gets."""
    counts: Counter[str] = Counter()
    for (_, _, other), sums in found.cells.items():
        counts[other.decision] += sums.rows
    return counts


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _matrix(cells: Mapping[Cell, Sums], label: Label) -> list[Json]:
    """Return every pair that occurs, the unchanged too, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (_, one, other), sums in sorted(cells.items(), key=itemgetter(0)):
        pair = (label(one), label(other))
        counts[pair] += sums.rows
        samples[pair] += sums.samples
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"from": one, "to": other, "count": count, "samples": samples[one, other][:SAMPLES]}
        for (one, other), count in ordered
    ]


def _rules(cells: Mapping[Cell, Sums]) -> list[Json]:
    """Return, of each decision, how many requests it gains, loses, or sends to another model."""
    found: dict[str, Counter[str]] = {}
    for (_, one, other), sums in cells.items():
        if one == other:
            continue
        if one.goes_by == other.goes_by:
            found.setdefault(one.goes_by, Counter())["other_model"] += sums.rows
        else:
            found.setdefault(one.goes_by, Counter())["loses"] += sums.rows
            found.setdefault(other.goes_by, Counter())["gains"] += sums.rows
    rows = [
        {"decision": name, **{key: counts[key] for key in ("gains", "loses", "other_model")}}
        for name, counts in found.items()
    ]
    return sorted(
        rows, key=lambda row: (-(row["gains"] + row["loses"] + row["other_model"]), row["decision"])
    )


def _tenants(cells: Mapping[Cell, Sums]) -> list[Json]:
    """Return each tenant's share that changes, the largest first."""
    decisions: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for (tenant, one, other), sums in cells.items():
        decisions[tenant] += sums.rows
        changed[tenant] += sums.rows if one != other else 0
    rows = [
        {"tenant": t, "decisions": n, "changed": changed[t], "share": _share(changed[t], n)}
        for t, n in decisions.items()
    ]
    return sorted(rows, key=lambda row: (-row["share"], -row["changed"], row["tenant"]))


def _cost(found: Comparison, new: Policy, old: Policy | None) -> Json:
    """Return what agreed rows did cost, and what the others did and would by mean tokens.

    Where one side is a policy that did not decide the log, nothing is exact: both are predicted.
    """
    same = [sums for (_, one, other), sums in found.cells.items() if one.model == other.model]
    moved = [(key, sums) for key, sums in found.cells.items() if key[1].model != key[2].model]
    expected = _sum_known(predicted(found, new, key[1].goes_by, key[2], sums) for key, sums in moved)
    answer: Json = {
        "agreed": {
            "rows": sum(s.rows for s in same),
            "priced": sum(s.priced for s in same),
            "usd": _usd(sum(s.usd for s in same)) if old is None else None,
        },
        "other_model": {"rows": sum(s.rows for _, s in moved), "predicted_usd": _usd(expected)},
        "prediction": _PREDICTION,
    }
    if old is None:
        answer["other_model"]["logged_usd"] = _usd(sum(s.usd for _, s in moved))
        answer["other_model"]["logged_priced"] = sum(s.priced for _, s in moved)
    else:
        before = _sum_known(predicted(found, old, key[1].goes_by, key[1], sums) for key, sums in moved)
        answer["other_model"]["predicted_usd_before"] = _usd(before)
    return answer


def _usd(amount: float | None) -> float | None:
    """Return *amount* without the last digits, which depend on the order of summation."""
    return None if amount is None else round(amount, 9)


def _sum_known(amounts: Iterable[float | None]) -> float | None:
    """Return the sum, None if any is unknown."""
    listed = list(amounts)
    known = [amount for amount in listed if amount is not None]
    return sum(known) if len(known) == len(listed) else None


def predicted(found: Comparison, policy: Policy, bucket: str, outcome: Outcome, sums: Sums) -> float | None:
    """Return what the rows of a cell would cost with *outcome*, None if no tokens were ever logged."""
    model = outcome.chosen
    if not model:
        return 0.0
    mean = mean_tokens(found, model, bucket)
    if mean is None or model not in policy.models:
        return None
    prompt = sums.prompt + (sums.rows - sums.counted) * mean[0]
    pricing = policy.models[model].pricing
    million = prompt * pricing.prompt_per_1m + sums.rows * mean[1] * pricing.completion_per_1m
    return float(million / 1_000_000)


def mean_tokens(found: Comparison, model: str, bucket: str) -> tuple[float, float] | None:
    """Return mean prompt and completion tokens of *model* in decision *bucket*, or of the nearest known."""
    exact = [found.usage[model, bucket]] if (model, bucket) in found.usage else []
    own = [sums for (name, _), sums in found.usage.items() if name == model]
    for chosen in (exact, own, list(found.usage.values())):
        counted = sum(sums.counted for sums in chosen)
        if counted:
            prompt = sum(sums.prompt for sums in chosen) / counted
            return prompt, sum(sums.completion for sums in chosen) / counted
    return None


def safety_flips(found: Comparison, new: Policy, old: Policy | None = None) -> list[Json]:
    """Return the decisions marked as safety, on either side, that requests gain or lose."""
    marked = _marked(new) | (_marked(old) if old is not None else set())
    counts: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (_, one, other), sums in sorted(found.cells.items(), key=itemgetter(0)):
        if one.decision != other.decision and marked & {one.decision, other.decision}:
            pair = (one.goes_by, other.goes_by)
            counts[pair] += sums.rows
            samples[pair] += sums.samples
    return [
        {"from": pair[0], "to": pair[1], "count": count, "samples": samples[pair][:SAMPLES]}
        for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _marked(policy: Policy) -> set[str]:
    scopes = (policy.routing, *(recipe.routing for recipe in policy.recipes))
    return {decision.name for routing in scopes for decision in routing.decisions if decision.safety}


def lines_of(found: Json) -> list[str]:
    """Return the report *found* as lines to read."""
    changed = f"{found['changed']} of {found['decisions']} decisions change ({found['changed_share']:.2%})"
    unknown = f"{found['unknown']} need signals that the log does not hold ({found['unknown_share']:.2%})"
    lines = [f"{changed}; {unknown}"]
    lines += [f"  unknown in {count}: {leaf}" for leaf, count in found["unknown_signals"].items()]
    lines += [
        f"dropped by age: {row['rows']} {table} of {row['from']} to {row['to']}"
        for table, row in found["dropped"].items()
    ]
    lines += [f"safety: {_moved(row)}" for row in found["safety_flips"]]
    for title, key in (("model", "models"), ("decision", "decision_matrix")):
        lines += [f"{title} {_moved(row)}" for row in _moves(found[key])]
    lines += [
        f"rule {r['decision']}: gains {r['gains']}, loses {r['loses']}, other model {r['other_model']}"
        for r in found["rules"][:_SHOWN]
    ]
    lines += [
        f"tenant {t['tenant']}: {t['changed']} of {t['decisions']} ({t['share']:.2%})"
        for t in found["tenants"][:_SHOWN]
        if t["changed"]
    ]
    return [*lines, *_cost_lines(found["cost"]), *_exploring_lines(found["exploration"])]


def _exploring_lines(exploring: Json | None) -> list[str]:
    if exploring is None:
        return []
    text = (
        f"exploring: {exploring['expected_explored']:.1f} of {exploring['decisions']} decisions expected, "
        f"{exploring['expected_extra_usd']:+.6f} USD by expected tokens while the cap of "
        f"{exploring['max_extra_usd_per_day']:g} USD a day lasts"
    )
    return [text, *(f"exploring: {name} is in several recipes, uncounted" for name in exploring["uncounted"])]


def _moves(rows: list[Json]) -> list[Json]:
    return [row for row in rows if row["from"] != row["to"]][:_SHOWN]


def _moved(row: Json) -> str:
    return f"{row['from']} -> {row['to']}: {row['count']}, such as {', '.join(row['samples'])}"


def _cost_lines(cost: Json) -> list[str]:
    agreed, other = cost["agreed"], cost["other_model"]
    lines = []
    if agreed["usd"] is not None:
        lines.append(f"cost where the model stays, as logged: {agreed['usd']:.6f} USD for {agreed['priced']}")
    before = other.get("logged_usd", other.get("predicted_usd_before"))
    kind = "logged" if "logged_usd" in other else "predicted"
    was = "unknown" if before is None else f"{before:.6f} USD"
    would = "unknown" if other["predicted_usd"] is None else f"{other['predicted_usd']:.6f} USD"
    return [
        *lines,
        f"cost where it changes ({other['rows']}): {was} {kind}, {would} predicted ({cost['prediction']})",
    ]


def markdown_of(found: Json, policy_lines: list[str]) -> str:
    """Return the report *found* as a comment; *policy_lines* tell what differs in the files."""
    flips = found["safety_flips"]
    verdict = "**A safety decision flips.**" if flips else "No safety decision flips."
    lines = [
        f"### {found['changed_share']:.2%} of {found['decisions']} logged decisions change",
        "",
        f"{verdict} {found['unknown_share']:.2%} need signals that the log does not hold.",
        "",
    ]
    for title, rows in (
        ("Safety decision", flips),
        ("Model", _moves(found["models"])),
        ("Decision", _moves(found["decision_matrix"])),
    ):
        if rows:
            lines += [f"| {title} before | after | requests | such as |", "|---|---|---:|---|"]
            lines += [
                f"| {_cell(row['from'])} | {_cell(row['to'])} | {row['count']} | "
                f"{', '.join(f'`{sample}`' for sample in row['samples'])} |"
                for row in rows
            ]
            lines.append("")
    money = [*_cost_lines(found["cost"]), *_exploring_lines(found["exploration"])]
    lines += [f"- {_cell(line)}" for line in money]
    lines += ["", "<details><summary>What differs in the policies</summary>", ""]
    lines += [f"- {_cell(line)}" for line in policy_lines]
    return "\n".join([*lines, "", "</details>", ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
