"""A second opinion on what a policy decides: dictionaries and plain recursion, written for reading.

It takes the routing part of a policy as the YAML has it and the signals as the golden cases have
them, and shares no code with the engine: only the sigmoid's `exp` is handed in, so that both can be held to
the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
FUZZY_FROM = 0.5


class Refused(Exception):
    """A leaf that says fail_request met an unknown signal."""


@dataclass
class State:
    """The signals as they are known at some stage."""

    matches: dict[str, list[str]]
    confidences: dict[str, float]
    values: dict[str, float]
    errors: dict[str, str]
    metrics: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def matched(self, kind: str, name: str) -> bool:
        """Tell whether rule *name* of type *kind* matched."""
        return name in self.matches.get(kind, ())

    def drop(self, kind: str, name: str) -> None:
        """Forget that *name* matched."""
        self.matches[kind].remove(name)
        self.confidences.pop(f"{kind}:{name}", None)


def partition(state: State, group: Json, domains: set[str], exp: Callable[[float], float]) -> None:
    """Keep the best member of *group*."""
    members = group["members"]
    if len(members) < 2:
        return
    kind = "domain" if members[0] in domains else "embedding"
    matched = [name for name in state.matches.get(kind, []) if name in members]
    contenders = [name for name in matched if f"{kind}:{name}" in state.confidences]
    default = group.get("default")
    if not contenders and default and default not in matched:
        state.matches.setdefault(kind, []).append(default)
        state.confidences.pop(f"{kind}:{default}", None)
    if len(contenders) < 2:
        return
    winner = contenders[0]
    for name in contenders:
        if state.confidences[f"{kind}:{name}"] > state.confidences[f"{kind}:{winner}"]:
            winner = name
    best = state.confidences[f"{kind}:{winner}"]
    if group["semantics"] == "softmax_exclusive":
        temperature = group.get("temperature") or 1.0
        total = 0.0
        for name in contenders:
            total += exp((state.confidences[f"{kind}:{name}"] - best) / temperature)
        best = exp(0.0) / total
    for name in matched:
        if name != winner:
            state.drop(kind, name)
    state.confidences[f"{kind}:{winner}"] = best


def composed(state: State, node: Json) -> bool:
    """Tell whether a composer's *node* holds."""
    if node.get("type"):
        return state.matched(node["type"], node.get("name", ""))
    children = [composed(state, child) for child in node.get("conditions") or []]
    operator = (node.get("operator") or "AND").upper()
    if operator == "OR":
        return any(children)
    if operator == "NOT":
        return len(children) == 1 and not children[0]
    return all(children)


def keep_top(state: State, top_k: int) -> None:
    """Keep the *top_k* best embedding rules."""
    names = state.matches.get("embedding", [])
    if top_k <= 0 or len(names) <= top_k:
        return
    ranked = sorted(names, key=lambda n: (-state.confidences.get(f"embedding:{n}", 0.0), n.encode()))
    for name in ranked[top_k:]:
        state.drop("embedding", name)
    state.matches["embedding"] = ranked[:top_k]


def contribution(state: State, source: Json) -> float:
    """Return the value of one input of a score."""
    kind, name = source["type"], source.get("name", "")
    if kind == "kb_metric":
        return state.metrics.get(f"kb_metric:{source['kb']}:{source['metric']}", 0.0)
    how = source.get("value_source") or "binary"
    if kind == "projection" and how != "confidence":
        return state.scores.get(name, 0.0)
    if how == "raw":
        return state.values.get(f"{kind}:{name}", 0.0)
    matched = kind != "authz" and state.matched(kind, name)
    if not matched:
        return source.get("miss") or 0.0
    if how == "confidence":
        recorded = state.confidences.get(f"{kind}:{name}", 0.0)
        return recorded if recorded > 0 else 1.0
    return source.get("match") or 1.0


def in_band(band: Json, number: float) -> bool:
    """Tell whether *number* satisfies every bound of *band*."""
    return (
        ("gt" not in band or number > band["gt"])
        and ("gte" not in band or number >= band["gte"])
        and ("lt" not in band or number < band["lt"])
        and ("lte" not in band or number <= band["lte"])
    )


def emit(state: State, mapping: Json, exp: Callable[[float], float]) -> None:
    """Publish the outputs of *mapping* that its score reaches."""
    score = state.scores[mapping["source"]]
    slope = (mapping.get("calibration") or {}).get("slope") or 0.0
    slope = slope if slope > 0 else 12.0
    for band in mapping["outputs"]:
        if in_band(band, score):
            distance = min(abs(score - band[k]) for k in ("gt", "gte", "lt", "lte") if k in band)
            state.matches.setdefault("projection", []).append(band["name"])
            state.confidences[f"projection:{band['name']}"] = 1.0 / (1.0 + exp(-slope * distance))
            state.outputs.append(band["name"])
            if (mapping.get("method") or "threshold_bands") == "threshold_bands":
                return


def project(state: State, projections: Json, exp: Callable[[float], float]) -> None:
    """Compute scores and mappings, what they depend on first."""
    scores = {s["name"]: s for s in projections.get("scores") or []}
    mappings = projections.get("mappings") or []
    if not scores or not mappings:
        return
    makers = {band["name"]: m for m in mappings for band in m["outputs"]}

    def score(name: str) -> None:
        if name in state.scores:
            return
        for source in scores[name]["inputs"]:
            if source["type"] == "projection":
                needed = source["name"]
                score(makers[needed]["source"] if source.get("value_source") == "confidence" else needed)
        total = 0.0
        for source in scores[name]["inputs"]:
            total += contribution(state, source) * source.get("weight", 0.0)
        state.scores[name] = total
        for mapping in mappings:
            if mapping["source"] == name:
                emit(state, mapping, exp)

    for name in scores:
        score(name)


@dataclass
class Node:
    """What a rule came to."""

    matched: bool
    confidence: float
    rules: list[str]
    tree: Json


def leaf(state: State, node: Json, categories: dict[str, list[str]]) -> Node:
    """Evaluate a leaf."""
    kind, name, label = node["type"].lower().strip(), node.get("name", ""), node.get("label", "")
    shown = f"{node['type']}:{name}" + (f":{label}" if label else "")
    key = f"{kind}:{name}"
    confidence = 0.0
    unknown = key in state.errors
    if unknown and node.get("on_unknown") == "fail_request":
        raise Refused(key)
    if node.get("predicate") is not None:
        full = key + (f":{label}" if label else "")
        number = state.values.get(full, state.confidences.get(full))
        if number is None:
            matched = unknown and "match" in (node.get("on_error"), node.get("on_unknown"))
        else:
            matched = in_band(node["predicate"], number)
        confidence = 1.0 if matched else 0.0
    else:
        found = state.matches.get(kind, [])
        matched = name in found
        if kind == "domain":
            matched = matched or any(c in found for c in categories.get(name, []))
        if matched:
            confidence = state.confidences.get(key, 1.0)
        elif unknown and node.get("on_unknown") == "match":
            matched = True
    rules = [shown] if matched else []
    return Node(matched, confidence, rules, {"k": "leaf", "leaf": shown, "m": matched, "c": confidence})


def evaluate(state: State, node: Json, categories: dict[str, list[str]]) -> Node:
    """Evaluate a rule."""
    if node.get("type"):
        return leaf(state, node, categories)
    operator = (node.get("operator") or "OR").upper()
    conditions = node.get("conditions") or []
    children: list[Node] = []
    for condition in conditions:
        if operator == "NOT" and len(conditions) != 1:
            break
        children.append(evaluate(state, condition, categories))
        if operator == "AND" and not children[-1].matched:
            break
    combine = {"AND": all_of, "NOT": none_of}.get(operator, best_of)
    made = combine(children, len(conditions))
    made.tree = {
        "k": operator if operator in {"AND", "NOT"} else "OR",
        "m": made.matched,
        "c": made.confidence,
    }
    if children:
        made.tree["ch"] = [child.tree for child in children]
    return made


def all_of(children: list[Node], size: int) -> Node:
    """Combine the children of AND, of which there are *size* in all."""
    if not all(child.matched for child in children):
        return Node(matched=False, confidence=0.0, rules=[], tree={})
    total = 0.0
    for child in children:
        total += child.confidence
    rules = [rule for child in children for rule in child.rules]
    return Node(matched=True, confidence=total / size if size else 0.0, rules=rules, tree={})


def none_of(children: list[Node], size: int) -> Node:
    """Combine the children of NOT."""
    if size != 1:
        return Node(matched=False, confidence=0.0, rules=[], tree={})
    (child,) = children
    confidence = child.confidence if child.matched else 1.0
    return Node(matched=not child.matched, confidence=confidence, rules=child.rules, tree={})


def best_of(children: list[Node], size: int) -> Node:
    """Combine the children of OR."""
    del size
    best = Node(matched=False, confidence=0.0, rules=[], tree={})
    for child in children:
        if child.matched and (not best.matched or child.confidence > best.confidence):
            best = child
    return Node(matched=best.matched, confidence=best.confidence, rules=best.rules, tree={})


def degree_of(state: State, node: Json, categories: dict[str, list[str]]) -> float:
    """Return how true *node* is: AND the least, OR the greatest, NOT the rest to 1."""
    if node.get("type"):
        found = leaf(state, node, categories)
        key = f"{node['type'].lower().strip()}:{node.get('name', '')}"
        if found.matched and found.confidence == 0.0 and key in state.errors:
            return 1.0
        return max(0.0, min(1.0, found.confidence)) if found.matched else 0.0
    operator = (node.get("operator") or "OR").upper()
    conditions = node.get("conditions") or []
    if operator == "NOT" and len(conditions) != 1:
        return 0.0
    degrees = [degree_of(state, child, categories) for child in conditions]
    if operator == "NOT":
        return 1.0 - degrees[0]
    return min([1.0, *degrees]) if operator == "AND" else max([0.0, *degrees])


def root(state: State, rules: Json | None, categories: dict[str, list[str]], *, fuzzy: bool = False) -> Node:
    """Evaluate a decision's rules; none at all always match."""
    rules = rules or {}
    if not any(rules.get(k) for k in ("type", "name", "operator", "conditions")):
        tree = {"k": "fallback", "m": True, "c": 0}
        return Node(matched=True, confidence=0.0, rules=[], tree=tree)
    if fuzzy:
        degree = degree_of(state, rules, categories)
        return Node(degree >= FUZZY_FROM, degree, [], {})
    return evaluate(state, rules, categories)


def derive(config: Json, signals: Json, exp: Callable[[float], float]) -> State:
    """Run the derived stages."""
    routing = config["routing"]
    declared = routing.get("signals") or {}
    state = State(
        copy.deepcopy(signals.get("matches") or {}),
        dict(signals.get("confidences") or {}),
        dict(signals.get("values") or {}),
        dict(signals.get("errors") or {}),
        dict(signals.get("kb_metrics") or {}),
    )
    projections = routing.get("projections") or {}
    domains = {d["name"] for d in declared.get("domains") or []}
    authz = state.matches.pop("authz", None)
    for group in projections.get("partitions") or []:
        partition(state, group, domains, exp)
    for rule in declared.get("complexity") or []:
        if rule.get("composer") is not None and not composed(state, rule["composer"]):
            levels = [f"{rule['name']}:{level}" for level in ("hard", "medium", "easy")]
            kept = [name for name in state.matches.get("complexity", []) if name not in levels]
            state.matches["complexity"] = kept
    keep_top(state, top_k_of(config))
    project(state, projections, exp)
    if authz is not None:
        state.matches["authz"] = authz
    return state


def top_k_of(config: Json) -> int:
    """Return how many embedding rules may match."""
    node: Any = config.get("global") or {}
    for key in ("model_catalog", "embeddings", "semantic", "embedding_config"):
        node = node.get(key) or {}
    top = node.get("top_k")
    return 1 if top is None else int(top)


def decide(
    config: Json, signals: Json, exp: Callable[[float], float]
) -> tuple[Json | None, Node | None, list[Node], State]:
    """Return the winner, its node, every decision's node and the derived state."""
    routing = config["routing"]
    state = derive(config, signals, exp)
    categories = {
        d["name"]: d.get("mmlu_categories") or [] for d in (routing.get("signals") or {}).get("domains") or []
    }
    fuzzy = routing.get("strategy") == "fuzzy"
    nodes = [root(state, d.get("rules"), categories, fuzzy=fuzzy) for d in routing["decisions"]]
    matched = [(d, n) for d, n in zip(routing["decisions"], nodes, strict=True) if n.matched]
    if not matched:
        return None, None, nodes, state
    tiered = any((d.get("tier") or 0) > 0 for d, _ in matched)

    def order(pair: tuple[Json, Node]) -> tuple[Any, ...]:
        decision, node = pair
        name = decision["name"].encode()
        priority, confidence = decision.get("priority") or 0, node.confidence
        if tiered:
            untiered = 1_000_000 if routing.get("untiered") == "last" else 0
            return (decision.get("tier") or untiered, -confidence, -priority, name)
        if routing.get("strategy") in {"confidence", "fuzzy"}:
            return (-confidence, -priority, name)
        return (-priority, -confidence, name)

    decision, node = min(matched, key=order)
    return decision, node, nodes, state
