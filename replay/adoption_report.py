"""An adoption as plain values and as lines to read: numbers and places, never a word of what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.policy import Policy
from replay.adoption import Adoption, Money, Safety
from replay.imported import ImportedLog, Place, Reading

Json = dict[str, Any]
_SHOWN = 10
_LISTED = 1000
_STEP = 0.2
ASSUMED = (
    "another model answers with as many tokens as the one that did, and reads the prompt as as many; "
    "prices are those of the policy, without discounts for batches or cached prompts"
)
UNKNOWABLE = (
    "how good the answers of another model would have been: nobody gave them",
    "latency: it depends on the load that this traffic would put on another provider",
    "how many tokens another model would have written; the cost assumes as many",
)


def report(found: Adoption, log: ImportedLog, policy: Policy) -> Json:
    """Return *found*, of *log* under *policy*, as plain values."""
    names = [path.name for path in log.paths]
    return {
        "policy": policy.hash,
        "files": names,
        **_read(log.reading, names),
        "calls": found.calls,
        "states": dict(sorted(found.states.items())),
        "would_be_refused": _places(found.refused, names),
        "models": _matrix(found),
        "decisions": dict(found.decisions.most_common()),
        "cost": _cost(found),
        "safety": _safety(found, policy, names),
        "unknown": _unknown(found),
        "truncated_prompts": _listed(found.cut, names),
        "not_known": list(UNKNOWABLE),
    }


def _read(reading: Reading, names: Sequence[str]) -> Json:
    return {
        "lines": reading.lines,
        "formats": dict(sorted(reading.formats.items())),
        "malformed": _places(reading.malformed, names),
        "left_out": _places(reading.left_out, names),
    }


def _places(found: Mapping[str, list[Place]], names: Sequence[str]) -> list[Json]:
    rows = [{"reason": reason, **_listed(places, names)} for reason, places in found.items()]
    return sorted(rows, key=lambda row: (-row["count"], row["reason"]))


def _listed(places: Sequence[Place], names: Sequence[str]) -> Json:
    """Return how many *places* there are and the first of them, by line, and file if there are several."""
    several = len(names) > 1
    ordered = sorted(places, key=lambda place: (place.file, place.line))[:_LISTED]
    lines = [f"{names[place.file]}:{place.line}" if several else place.line for place in ordered]
    return {"count": len(places), "lines": lines}


def _matrix(found: Adoption) -> list[Json]:
    rows = []
    for (then, now), count in sorted(found.models.items(), key=lambda item: (-item[1], item[0])):
        money = found.cells.get((then, now), Money())
        paid, would = (_usd(money.paid), _usd(money.would)) if money.calls else (None, None)
        priced = {"priced": money.calls, "paid_usd": paid, "would_usd": would}
        rows.append({"from": then, "to": now, "count": count, **priced})
    return rows


def _cost(found: Adoption) -> Json:
    cells = found.cells.values()
    paid, would = sum(cell.paid for cell in cells), sum(cell.would for cell in cells)
    written = sum(cell.written for cell in cells)
    return {
        "calls": sum(cell.calls for cell in cells),
        "paid_usd": _usd(paid),
        "would_usd": _usd(would),
        "difference_usd": _usd(would - paid),
        "ratio": would / paid if paid > 0 else None,
        "all_paid_usd": _usd(found.paid_usd),
        "paid_according_to": dict(sorted(found.sources.items())),
        "billed_at_a_discount": found.discounted,
        "not_compared": {
            "no price of then": found.unpriced["then"],
            "no price in the policy": found.unpriced["now"],
            "no tokens in the log": found.unpriced["tokens"],
            **{f"call {state}": n for state, n in sorted(found.states.items()) if state != "answered"},
        },
        "assumption": {
            "text": ASSUMED,
            "calls_to_another_model": sum(cell.moved for cell in cells),
            "usd_that_rest_on_it": _usd(written),
            "share_of_would": written / would if would > 0 else 0.0,
            "usd_if_20_percent_more_tokens": _usd(would + _STEP * written),
            "usd_if_20_percent_fewer_tokens": _usd(would - _STEP * written),
        },
    }


def _usd(amount: float) -> float:
    return round(amount, 9)


def _safety(found: Adoption, policy: Policy, names: Sequence[str]) -> list[Json]:
    """Return every decision that is marked as safety, those that never match too."""
    marked = dict.fromkeys(d.name for _, routing in policy.scopes for d in routing.decisions if d.safety)
    rows = []
    for name in marked:
        seen = found.safety.get(name, Safety())
        kinds = (("matched", seen.matched), ("won", seen.won), ("open", seen.open))
        rows.append({"decision": name, **{kind: _listed(places, names) for kind, places in kinds}})
    return rows


def _unknown(found: Adoption) -> Json:
    hanging = sum(found.open.values())
    return {
        "requests": found.unknown,
        "share": found.unknown / found.calls if found.calls else 0.0,
        "signals": dict(sorted(found.lacking.items())),
        "hanging": hanging,
        "hanging_share": hanging / found.calls if found.calls else 0.0,
        "hang_on": dict(found.open.most_common()),
    }


def lines_of(answer: Json) -> list[str]:
    """Return the report *answer* as lines to read."""
    answered = answer["states"].get("answered", 0)
    states = ", ".join(f"{n} {state}" for state, n in answer["states"].items() if state != "answered")
    lines = [
        f"{answer['calls']} calls of {answer['lines']} lines ({_named(answer['formats'])}): "
        f"{answered} answered" + (f", {states}" if states else "")
    ]
    for title, key in (
        ("malformed", "malformed"),
        ("left out", "left_out"),
        ("would be refused", "would_be_refused"),
    ):
        lines += [
            f"{title}: {row['count']}, {row['reason']}; {_where(row['lines'])}"
            for row in answer[key][:_SHOWN]
        ]
    lines += ["", *_table(("model then", "model now", "calls", "paid USD", "would be USD"), _rows(answer))]
    lines += ["", *_cost_lines(answer["cost"]), "", *_safety_lines(answer["safety"])]
    return [*lines, "", *_unknown_lines(answer)]


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "no format"


def _where(lines: Sequence[int | str]) -> str:
    more = ", ..." if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) != 1 else ''} {', '.join(map(str, lines[:_SHOWN]))}{more}"


def _rows(answer: Json) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (row["from"], row["to"], str(row["count"]), _amount(row["paid_usd"]), _amount(row["would_usd"]))
        for row in answer["models"][: 2 * _SHOWN]
    ]
    left = sum(row["count"] for row in answer["models"][2 * _SHOWN :])
    return [*rows, ("(others)", "", str(left), "", "")] if left else rows


def _amount(usd: float | None) -> str:
    return "unknown" if usd is None else f"{usd:.4f}"


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    drawn = []
    for row in (heading, *rows):
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)  # noqa: PLR2004 - numbers stand right
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        drawn.append("  ".join(cells).rstrip())
    return drawn


def _cost_lines(cost: Json) -> list[str]:
    ratio = "" if cost["ratio"] is None else f", {cost['ratio']:.1%} of it"
    sources = ", ".join(f"{n} by the {_SOURCES[name]}" for name, n in cost["paid_according_to"].items())
    left = ", ".join(f"{n} {why}" for why, n in cost["not_compared"].items() if n)
    assumed = cost["assumption"]
    paid, would = f"{cost['paid_usd']:.4f} USD paid", f"{cost['would_usd']:.4f} would be{ratio}"
    rests = f"{assumed['usd_that_rest_on_it']:.4f} USD ({assumed['share_of_would']:.1%}) rest on that"
    fewer, more = assumed["usd_if_20_percent_fewer_tokens"], assumed["usd_if_20_percent_more_tokens"]
    return [
        f"cost of {cost['calls']} calls: {paid}, {would}",
        f"  what was paid is known {sources or 'for no call'}",
        *_discount(cost["billed_at_a_discount"]),
        f"  not compared: {left or 'none'}",
        f"  assumed: {assumed['text']}",
        f"  {rests}, for {assumed['calls_to_another_model']} calls that go elsewhere",
        f"  with 20 % fewer or more tokens of theirs it would be {fewer:.4f} or {more:.4f}",
    ]


def _discount(calls: int) -> list[str]:
    if not calls:
        return []
    return [f"  {calls} of them were batch calls, billed at half; the policy's calls are reckoned in full"]


_SOURCES = {
    "logged": "log itself",
    "policy": "policy's prices",
    "list": "public list prices",
    "unknown": "(unknown)",
}


def _safety_lines(rows: Sequence[Json]) -> list[str]:
    if not rows:
        return ["safety: no decision of the policy is marked with safety: true"]
    lines = []
    for row in rows:
        line = f"safety {row['decision']}: matches {row['matched']['count']}, decides {row['won']['count']}"
        if row["matched"]["count"]:
            line += f"; {_where(row['matched']['lines'])}"
        if row["open"]["count"]:
            line += f"; hangs on unknown signals in {row['open']['count']}"
        lines.append(line)
    return lines


def _unknown_lines(answer: Json) -> list[str]:
    unknown = answer["unknown"]
    lines = ["what cannot be known from this log:"]
    if unknown["requests"]:
        named = ", ".join(list(unknown["signals"])[:_SHOWN])
        needing = f"{unknown['requests']} calls ({unknown['share']:.1%})"
        hanging = f"{unknown['hanging']} of them ({unknown['hanging_share']:.1%})"
        lines.append(f"  {needing} need signals that are unknown here: {named}")
        lines.append(f"  {hanging} may be decided otherwise once they are known; --triton asks classifiers")
    cut = answer["truncated_prompts"]["count"]
    if cut:
        lines.append(f"  {cut} prompts were cut when they were logged: what is missing of them was not seen")
    return [*lines, *(f"  {what}" for what in answer["not_known"])]
