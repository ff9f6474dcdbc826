"""What a decision is refused for: its rules, candidates, algorithm, plugins and the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agents.complaints import Complaint
from agents.loading.algorithms import of_algorithm
from agents.loading.plugins import of_plugins
from agents.loading.references import BEYOND, Scope, is_type
from agents.policy_model import Decision
from agents.rules import MAX_DEPTH, Node, Predicate

_MOST_ANNOTATIONS, _LONGEST_ANNOTATIONS = 32, 4096
_MODES = frozenset({"", "apply", "observe", "bypass"})
_LEAST_LOCAL = 0.5
_NO_PREDICATE = "a condition on a classifier needs a predicate"


def of_decision(decision: Decision, scope: Scope) -> Iterator[Complaint]:
    """Iterate over what is wrong with *decision*, its rules left out."""
    if decision.tier < 0:
        yield Complaint(("tier",), "a tier is not negative")
    yield from _annotations(decision.annotations)
    yield from _candidates(decision, scope)
    yield from of_algorithm(decision)
    yield from _iterations(decision)
    yield from _emits(decision)
    yield from of_plugins(decision.plugins)
    yield from _adaptations(decision.adaptations)


def of_rules(decision: Decision, scope: Scope) -> Iterator[Complaint]:
    """Iterate over what is wrong with the rules of *decision*."""
    if decision.rules.depth > MAX_DEPTH:
        yield Complaint(("rules",), f"the rules are nested deeper than {MAX_DEPTH}")
        return
    for leaf in decision.rules.leaves():
        message = next(_leaf(leaf, scope), "")
        if message == _NO_PREDICATE:
            rule = scope.signals[("classifier", leaf.name)]
            bound = getattr(rule, "kind", "") == "local" and not getattr(rule, "model_path", "")
            yield Complaint(("rules",), message, portable=bound, condition="classifier")
        elif message:
            kind = leaf.kind if is_type(leaf.kind) or leaf.kind == "projection" else "type"
            undeclared = leaf.kind in BEYOND and (leaf.kind, leaf.name.strip()) not in scope.own
            yield Complaint(("rules",), message, condition="type" if undeclared else kind)


def _leaf(leaf: Node, scope: Scope) -> Iterator[str]:
    """Iterate over what is wrong with *leaf*; what comes after the first may follow from it."""
    kind, name = leaf.kind, leaf.name.strip()
    if kind == "projection":
        if name not in scope.outputs:
            yield f"no mapping publishes {name!r}"
    elif not is_type(kind):
        yield f"no signal has the type {leaf.type!r}"
    elif not name:
        yield f"a condition on {kind} needs a name"
    elif not scope.declares(kind, name) and (kind != "domain" or scope.has_domains()):
        yield f"refers to {kind}:{name}, which is not declared"
    else:
        yield from _details(leaf, scope)


def _details(leaf: Node, scope: Scope) -> Iterator[str]:
    folded = leaf.type.lower()
    if leaf.type == "complexity" and leaf.name.rpartition(":")[2] not in {"hard", "medium", "easy"}:
        yield f"{leaf.name!r} needs one of the levels :hard, :medium, :easy"
    if folded == "classifier":
        yield from _classifier_leaf(leaf, scope)
    elif leaf.label:
        yield "only classifiers have labels"
    if folded == "metadata" and ("metadata", leaf.name) not in scope.own:
        yield f"refers to metadata:{leaf.name}, which is not declared"
    if leaf.on_error and leaf.on_error not in {"no_match", "match"}:
        yield "on_error is no_match or match"
    if leaf.on_error and folded != "classifier":
        yield "only conditions on classifiers have on_error"
    message = bounds(leaf.predicate)
    if message:
        yield message


def _classifier_leaf(leaf: Node, scope: Scope) -> Iterator[str]:
    rule, asked = scope.signals.get(("classifier", leaf.name)), leaf.predicate
    if rule is None:
        yield f"refers to classifier:{leaf.name}, which is not declared"
    elif not leaf.label or leaf.label not in getattr(rule, "labels", ()):
        yield "a condition on a classifier needs one of its labels"
    elif asked is None:
        yield _NO_PREDICATE
    elif getattr(rule, "kind", "") == "local":
        others = any(bound is not None for bound in (asked.gt, asked.lt, asked.lte))
        if asked.gte is None or asked.gte < _LEAST_LOCAL or others:
            yield "a local classifier takes gte of at least 0.5 alone"


def bounds(predicate: Predicate | None) -> str:
    """Return what is wrong with the bounds of *predicate*, "" if nothing is."""
    if predicate is None:
        return ""
    if all(bound is None for bound in (predicate.gt, predicate.gte, predicate.lt, predicate.lte)):
        return "a predicate needs at least one of gt, gte, lt, lte"
    if predicate.gt is not None and predicate.gte is not None:
        return "gt and gte are both given"
    if predicate.lt is not None and predicate.lte is not None:
        return "lt and lte are both given"
    low = predicate.gt if predicate.gt is not None else predicate.gte
    high = predicate.lt if predicate.lt is not None else predicate.lte
    if low is None or high is None:
        return ""
    open_end = predicate.gt is not None or predicate.lt is not None
    return "no number lies within these bounds" if low > high or (low == high and open_end) else ""


def _annotations(annotations: Mapping[str, Any]) -> Iterator[Complaint]:
    if len(annotations) > _MOST_ANNOTATIONS:
        yield Complaint(("annotations",), f"more than {_MOST_ANNOTATIONS} keys")
    elif (
        len(json.dumps(annotations, separators=(",", ":"), ensure_ascii=False).encode())
        > _LONGEST_ANNOTATIONS
    ):
        yield Complaint(("annotations",), f"longer than {_LONGEST_ANNOTATIONS} bytes of JSON")


def _candidates(decision: Decision, scope: Scope) -> Iterator[Complaint]:
    for index, ref in enumerate(decision.modelRefs):
        path = ("modelRefs", index)
        if not ref.model:
            yield Complaint(path, "the candidate names no model")
        elif scope.models and ref.model not in scope.models:
            yield Complaint(path, f"no model {ref.model!r} is declared")
        elif ref.lora_name:
            card = scope.cards.get(ref.model)
            if card is None or ref.lora_name not in {lora.name for lora in card.loras}:
                yield Complaint((*path, "lora_name"), f"{ref.model!r} has no adapter {ref.lora_name!r}")


def _iterations(decision: Decision) -> Iterator[Complaint]:
    for index, each in enumerate(decision.candidateIterations):
        path = ("candidateIterations", index)
        source = str(each.get("source") or "").strip()
        if not str(each.get("variable") or "").strip():
            yield Complaint((*path, "variable"), "the variable has no name")
        elif source not in {"decision.candidates", "models"}:
            yield Complaint((*path, "source"), "the source is decision.candidates or models")
        elif source == "models" and not each.get("models"):
            yield Complaint((*path, "models"), "the source models needs models")
        elif source == "decision.candidates" and not decision.modelRefs:
            yield Complaint((*path, "source"), "the decision has no modelRefs")


def _emits(decision: Decision) -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, emit in enumerate(decision.emits):
        kind, retention = str(emit.get("kind") or ""), emit.get("retention")
        turns = retention.get("ttl_turns") if isinstance(retention, dict) else None
        if kind != "retention" or kind in seen:
            yield Complaint(("emits", index), "only one emit, of kind retention, is supported")
        elif not isinstance(retention, dict):
            yield Complaint(("emits", index), "an emit of kind retention needs retention")
        elif isinstance(turns, int) and turns < 0:
            yield Complaint(("emits", index), "ttl_turns is not negative")
        seen.add(kind)


def _adaptations(adaptations: Mapping[str, Any]) -> Iterator[Complaint]:
    modes = {"": str(adaptations.get("mode") or "").strip()}
    if modes[""] not in _MODES:
        yield Complaint(("adaptations", "mode"), "the mode is apply, observe or bypass")
    for part in ("adaptation", "protection"):
        inner = adaptations.get(part)
        mode = str(inner.get("mode") or "").strip() if isinstance(inner, dict) else ""
        forbidden = {"bypass": {"apply", "observe"}, "observe": {"apply"}}.get(modes[""], set())
        if mode not in _MODES or mode in forbidden:
            yield Complaint(("adaptations", part, "mode"), "the mode is not one that the decision's allows")
    adaptation = adaptations.get("adaptation")
    chosen = str(adaptation.get("candidate_set") or "").strip() if isinstance(adaptation, dict) else ""
    if chosen not in {"", "decision", "tier", "global"}:
        yield Complaint(("adaptations", "adaptation", "candidate_set"), "decision, tier or global")
