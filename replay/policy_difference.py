"""How two policies differ: which decisions, rules and models changed, whatever else the files say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.policy import Policy
from agents.policy_model import Decision, Routing

Json = dict[str, Any]

_FIELDS = ("priority", "tier", "rules", "modelRefs", "algorithm", "plugins")


def difference(one: Policy, other: Policy) -> Json:
    """Return what changed from *one* to *other*, by recipe ("" is the root's) and part."""
    before, after = _scopes(one), _scopes(other)
    recipes = {
        name: changes
        for name in dict.fromkeys((*before, *after))
        if (changes := _routing(before.get(name), after.get(name)))
    }
    models = _named(
        {m.name: m.model_dump(mode="json") for m in one.providers.models},
        {m.name: m.model_dump(mode="json") for m in other.providers.models},
    )
    found: Json = {"from": one.hash, "to": other.hash, "same": one.hash == other.hash}
    default = (one.providers.defaults.default_model, other.providers.defaults.default_model)
    if default[0] != default[1]:
        found["default_model"] = {"from": default[0], "to": default[1]}
    return found | {"models": models, "recipes": recipes}


def _scopes(policy: Policy) -> dict[str, Routing]:
    return dict(policy.scopes)


def _routing(one: Routing | None, other: Routing | None) -> Json:
    if one is None or other is None:
        return {"added" if one is None else "removed": True}
    found: Json = {}
    for name in ("strategy", "untiered"):
        was, now = getattr(one, name), getattr(other, name)
        if was != now:
            found[name] = {"from": was, "to": now}
    parts = {
        "decisions": _named(_decisions(one), _decisions(other)),
        "signals": _named(_signals(one), _signals(other)),
        "projections": _named(_projections(one), _projections(other)),
    }
    return found | {name: changes for name, changes in parts.items() if any(changes.values())}


def _decisions(routing: Routing) -> dict[str, Json]:
    return {decision.name: _decision(decision) for decision in routing.decisions}


def _decision(decision: Decision) -> Json:
    dumped = decision.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {field: dumped.get(field) for field in _FIELDS}


def _signals(routing: Routing) -> dict[str, Json]:
    return {
        f"{collection}.{config.name}": config.model_dump(mode="json", by_alias=True)
        for collection, configs in routing.signals.items()
        for config in configs
    }


def _projections(routing: Routing) -> dict[str, Json]:
    dumped = routing.projections.model_dump(mode="json")
    return {
        f"{kind}.{part['name']}": part
        for kind in ("partitions", "scores", "mappings")
        for part in dumped[kind]
    }


def _named(one: Mapping[str, Json], other: Mapping[str, Json]) -> Json:
    """Return which names were added, removed and changed; a change tells each field before and after."""
    changed = {
        name: {
            field: {"from": one[name].get(field), "to": other[name].get(field)}
            for field in dict.fromkeys((*one[name], *other[name]))
            if one[name].get(field) != other[name].get(field)
        }
        for name in one
        if name in other and one[name] != other[name]
    }
    return {
        "added": [name for name in other if name not in one],
        "removed": [name for name in one if name not in other],
        "changed": changed,
    }


def lines_of(found: Json) -> list[str]:
    """Return *found* as lines to read."""
    if found["same"]:
        return [f"the same policy: {found['from']}"]
    lines = [f"{found['from'][:12]} -> {found['to'][:12]}"]
    if "default_model" in found:
        lines.append(f"default model: {found['default_model']['from']} -> {found['default_model']['to']}")
    lines += _lines("model", found["models"], "")
    for recipe, changes in found["recipes"].items():
        scope = f"recipe {recipe}: " if recipe else ""
        for part, change in changes.items():
            if part in {"added", "removed"}:
                lines.append(f"{scope}{part}")
            elif "from" in change:
                lines.append(f"{scope}{part}: {change['from'] or '-'} -> {change['to'] or '-'}")
            else:
                lines += _lines(part.removesuffix("s"), change, scope)
    return lines if len(lines) > 1 else [*lines, "no decision, rule, signal, projection or model changed"]


def _lines(kind: str, changes: Json, scope: str) -> list[str]:
    lines = [f"{scope}{kind} {name}: added" for name in changes["added"]]
    lines += [f"{scope}{kind} {name}: removed" for name in changes["removed"]]
    return lines + [
        f"{scope}{kind} {name}: {', '.join(fields)} changed" for name, fields in changes["changed"].items()
    ]
