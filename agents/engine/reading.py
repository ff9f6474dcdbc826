"""From the routing part of a configuration, as plain mappings, to the tree; as lenient as the original.

What the loader refuses never comes here; what it lets pass is read as the original reads it. Every
oddity of reading (case, missing operators, zeros that mean a default) is in this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agents.engine.order import ordered
from agents.engine.tree import (
    AND,
    NOT,
    OR,
    Band,
    Bounds,
    Branch,
    Composer,
    Fallback,
    Leaf,
    Node,
    OnUnknown,
    Partition,
    Rule,
    Ruleset,
    Score,
    Strategy,
    Term,
)
from agents.engine.tree import Mapping as BandMapping

Raw = Mapping[str, Any]

LEVELS = ("hard", "medium", "easy")
_DEFAULT_SLOPE = 12.0
_DEFAULT_TEMPERATURE = 1.0
_DEFAULT_TOP_K = 1
_NEVER = Branch(OR)


def top_k_of(model_catalog: Raw) -> int:
    """Return how many embedding rules may match at once, 0 for all, as *model_catalog* says it."""
    node: Any = model_catalog
    for key in ("embeddings", "semantic", "embedding_config", "top_k"):
        if not isinstance(node, Mapping):
            return _DEFAULT_TOP_K
        node = node.get(key)
    return int(node) if isinstance(node, int | float) else _DEFAULT_TOP_K


def ruleset_of(routing: Raw, top_k: int = _DEFAULT_TOP_K) -> Ruleset:
    """Return the tree of *routing*; raises `ConfigError` if scores depend on each other in a circle."""
    signals = routing.get("signals") or {}
    projections = routing.get("projections") or {}
    domains = {d.get("name") or "": tuple(d.get("mmlu_categories") or ()) for d in _all(signals, "domains")}
    authz_is_read = projections.get("authz_inputs") == "observed"
    scores = tuple(_score(score, authz_is_read=authz_is_read) for score in _all(projections, "scores"))
    mappings = tuple(_mapping(mapping) for mapping in _all(projections, "mappings"))
    if not (scores and mappings):
        scores, mappings = (), ()
    return Ruleset(
        rules=tuple(_rule(decision, domains) for decision in _all(routing, "decisions")),
        strategy=_strategy(routing.get("strategy")),
        partitions=tuple(
            _partition(partition, domains)
            for partition in _all(projections, "partitions")
            if len(partition.get("members") or ()) > 1
        ),
        composers=tuple(
            _composer(rule) for rule in _all(signals, "complexity") if rule.get("composer") is not None
        ),
        embeddings=tuple(f"embedding:{rule.get('name') or ''}" for rule in _all(signals, "embeddings")),
        top_k=max(top_k, 0),
        scores=ordered(scores, mappings),
        mappings=mappings,
        untiered_last=routing.get("untiered") == "last",
    )


def _all(parent: Raw, key: str) -> Iterable[Raw]:
    return parent.get(key) or ()


def _strategy(written: object) -> Strategy:
    if written == "confidence":
        return "confidence"
    return "fuzzy" if written == "fuzzy" else "priority"


def _rule(decision: Raw, domains: Mapping[str, tuple[str, ...]]) -> Rule:
    return Rule(
        name=decision.get("name") or "",
        node=root_of(decision.get("rules"), domains),
        priority=int(decision.get("priority") or 0),
        tier=int(decision.get("tier") or 0),
    )


def root_of(rules: Raw | None, domains: Mapping[str, tuple[str, ...]]) -> Node:
    """Return the rules of a decision; none at all, and only at the root, is the fallback."""
    if not rules or not any(rules.get(key) for key in ("type", "name", "operator", "conditions")):
        return Fallback()
    return _node(rules, domains)


def _node(node: Raw, domains: Mapping[str, tuple[str, ...]]) -> Node:
    if node.get("type"):
        return _leaf(node, domains)
    operator = (node.get("operator") or "").upper()
    children = tuple(_node(child, domains) for child in _all(node, "conditions"))
    # Upper-cased and not trimmed: " AND " is an unknown operator, and those behave as OR.
    return Branch(operator if operator in {AND, NOT} else OR, children)


def _leaf(node: Raw, domains: Mapping[str, tuple[str, ...]]) -> Leaf:
    written, name, label = node["type"], node.get("name") or "", node.get("label") or ""
    kind = written.strip().lower()
    key, suffix = f"{kind}:{name}", f":{label}" if label else ""
    on_unknown: OnUnknown = node.get("on_unknown") or "no_match"
    predicate = node.get("predicate")
    return Leaf(
        shown=f"{written}:{name}{suffix}",
        key=key,
        number=key + suffix,
        bounds=None if predicate is None else bounds_of(predicate),
        on_error_match=node.get("on_error") == "match",
        on_unknown=on_unknown,
        others=tuple(f"domain:{c}" for c in domains.get(name, ())) if kind == "domain" else (),
    )


def bounds_of(written: Raw) -> Bounds:
    """Return the bounds of a predicate or a band."""
    found = {key: written.get(key) for key in ("gt", "gte", "lt", "lte")}
    return Bounds(**{key: None if bound is None else float(bound) for key, bound in found.items()})


def _partition(partition: Raw, domains: Mapping[str, tuple[str, ...]]) -> Partition:
    members = tuple(partition.get("members") or ())
    temperature = float(partition.get("temperature") or 0.0)
    return Partition(
        name=partition.get("name") or "",
        kind="domain" if members[0] in domains else "embedding",
        members=members,
        default=partition.get("default") or "",
        softmax=partition.get("semantics") == "softmax_exclusive",
        temperature=temperature if temperature > 0 else _DEFAULT_TEMPERATURE,
    )


def _composer(rule: Raw) -> Composer:
    name = rule.get("name") or ""
    return Composer(tuple(f"complexity:{name}:{level}" for level in LEVELS), _composed(rule["composer"]))


def _composed(node: Raw) -> Node:
    """Return a composer's node: types as written, AND where the operator is missing or unknown."""
    kind, name = node.get("type") or "", node.get("name") or ""
    if kind == "authz":
        # Roles are bound after composers have been looked at.
        return _NEVER
    if kind:
        key = f"{kind}:{name}"
        return Leaf(shown=key, key=key, number=key)
    operator = (node.get("operator") or "").upper()
    children = tuple(_composed(child) for child in _all(node, "conditions"))
    return Branch(operator if operator in {OR, NOT} else AND, children)


def _score(score: Raw, *, authz_is_read: bool) -> Score:
    terms = tuple(_term(term, authz_is_read=authz_is_read) for term in _all(score, "inputs"))
    return Score(score.get("name") or "", terms)


def _term(term: Raw, *, authz_is_read: bool) -> Term:
    kind, name, how = term.get("type") or "", term.get("name") or "", term.get("value_source") or ""
    weight = float(term.get("weight") or 0.0)
    if kind == "kb_metric":
        return Term(f"kb_metric:{term.get('kb') or ''}:{term.get('metric') or ''}", "metric", weight)
    if kind == "projection" and how != "confidence":
        return Term(name, "score", weight)
    key = f"{kind}:{name}"
    if how == "raw":
        return Term(key, "raw", weight)
    return Term(
        # Roles are bound after the projections, so such an input is always a miss.
        "" if kind == "authz" and not authz_is_read else key,
        "confidence" if how == "confidence" else "match",
        weight,
        match=float(term.get("match") or 1.0),
        miss=float(term.get("miss") or 0.0),
    )


def _mapping(mapping: Raw) -> BandMapping:
    slope = float((mapping.get("calibration") or {}).get("slope") or 0.0)
    return BandMapping(
        name=mapping.get("name") or "",
        source=mapping.get("source") or "",
        bands=tuple(Band(band.get("name") or "", bounds_of(band)) for band in _all(mapping, "outputs")),
        every=mapping.get("method") == "multi_emit",
        slope=slope if slope > 0 else _DEFAULT_SLOPE,
    )
