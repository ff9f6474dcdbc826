"""What an accepted policy does that its writer can hardly mean: VSR's oddities, and what is not here yet.

Each names the key of ours that ends it, where there is one; `policy modernize` sets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agents.complaints import ANY_OF, Oddity, Path
from agents.loading.exploring import odd_exploration, odd_shadow_signals
from agents.loading.plugins import normalised
from agents.loading.references import Scope
from agents.policy_model import Decision, Routing, kind_of
from agents.projection_model import Band, Projections
from agents.rules import Node
from agents.signals import Unhosted

if TYPE_CHECKING:
    from agents.policy import Policy

_OPERATORS = frozenset({"AND", "OR", "NOT"})
_COMPOSED = frozenset(
    [
        "keyword",
        "embedding",
        "domain",
        "fact_check",
        "user_feedback",
        "reask",
        "preference",
        "language",
        "context",
        "structure",
        "modality",
        "kb",
        "conversation",
    ]
)
_NUMBERLESS = frozenset({"context", "keyword", "language", "domain", "authz", "event", "metadata", "pii"})


def of_policy(policy: Policy) -> Iterator[Oddity]:
    """Iterate over the oddities of *policy*."""
    served = {name for name, model in policy.models.items() if model.provider}
    default = policy.providers.defaults.default_model
    if default and default not in served:
        where = ("providers", "defaults", "default_model")
        yield Oddity(where, "model-not-served", f"no provider serves {default!r}", "a backend_ref")
    scopes: list[tuple[Path, Routing]] = [(("routing",), policy.routing)]
    scopes += [(("recipes", i, "routing"), recipe.routing) for i, recipe in enumerate(policy.recipes)]
    for path, routing in scopes:
        for oddity in _of_routing(policy, routing, served):
            yield oddity.below(*path)
    yield from odd_exploration(policy)
    yield from odd_shadow_signals(policy)


def _of_routing(policy: Policy, routing: Routing, served: set[str]) -> Iterator[Oddity]:
    for collection, configs in routing.signals.items():
        for index, config in enumerate(configs):
            for oddity in config.oddities():
                yield oddity.below("signals", collection, index)
    yield from _unhosted(routing)
    yield from _composers(routing)
    scope = Scope.of(routing, policy.routing.modelCards, policy.global_.model_catalog)
    for oddity in _of_projections(routing.projections):
        yield oddity.below("projections")
    yield from _tiers(routing)
    for index, decision in enumerate(routing.decisions):
        for oddity in _of_decision(decision, scope, served):
            yield oddity.below("decisions", index)


def _unhosted(routing: Routing) -> Iterator[Oddity]:
    needed = {id(config) for configs in routing.demanded.values() for config in configs}
    for collection, configs in routing.signals.items():
        for index, config in enumerate(configs):
            if isinstance(config, Unhosted) and id(config) in needed:
                message = f"{config.why}: it is observed as failed, and on_unknown decides"
                yield Oddity(
                    ("signals", collection, index), "not-hosted", message, "on_unknown on its leaves"
                )


def _composers(routing: Routing) -> Iterator[Oddity]:
    """Iterate over leaves of composers that can never match: the original checks none of them."""
    declared = {(kind_of(config), config.name) for config in routing.declared}
    for index, config in enumerate(routing.signals.get("complexity", ())):
        for leaf in config.conditions():
            if leaf.type not in _COMPOSED or (leaf.type, leaf.name) not in declared:
                message = f"{leaf.leaf} is not declared, or of a type that a composer cannot read"
                path = ("signals", "complexity", index, "composer")
                yield Oddity(path, "composer-never-matches", message, "a declared signal")


def _tiers(routing: Routing) -> Iterator[Oddity]:
    tiered = [decision for decision in routing.decisions if decision.tier > 0]
    if not tiered or routing.untiered == "last":
        return
    for index, decision in enumerate(routing.decisions):
        if decision.tier == 0:
            message = (
                f"it has no tier, so it comes before every decision that has one, {tiered[0].name!r} too"
            )
            fix = ((("untiered",), "last"),)
            yield Oddity(("decisions", index), "untiered-first", message, "routing.untiered: last", fix)


def _of_projections(found: Projections) -> Iterator[Oddity]:
    for index, partition in enumerate(found.partitions):
        if len(set(partition.members)) == 1:
            message = "a partition of one member does nothing"
            yield Oddity(("partitions", index), "lonely-partition", message, "remove it")
    for at, score in enumerate(found.scores):
        for index, term in enumerate(score.inputs):
            path = ("scores", at, "inputs", index)
            if term.type == "authz" and found.authz_inputs == "miss":
                message = "authz is evaluated after the projections: the input is always a miss"
                fix = ((("authz_inputs",), "observed"),)
                remedy = "routing.projections.authz_inputs: observed"
                yield Oddity(path, "authz-input", message, remedy, fix)
            elif term.value_source == "raw" and (term.type in _NUMBERLESS or term.type == "complexity"):
                message = f"{term.type} has no raw number: the input is always 0"
                binary = (((*path, "value_source"), "binary"),)
                yield Oddity(path, "raw-is-zero", message, "value_source: binary", binary)
    for at, mapping in enumerate(found.mappings):
        for index, band in enumerate(mapping.outputs):
            if _impossible(band):
                message = "no number lies within these bounds, so it is never published"
                yield Oddity(("mappings", at, "outputs", index), "impossible-band", message, "other bounds")


def _impossible(band: Band) -> bool:
    low = band.gt if band.gt is not None else band.gte
    high = band.lt if band.lt is not None else band.lte
    if low is None or high is None:
        return False
    return low > high or (low == high and (band.gt is not None or band.lt is not None))


def _of_decision(decision: Decision, scope: Scope, served: set[str]) -> Iterator[Oddity]:
    yield from _of_rules(decision.rules, scope, ("rules",), root=True)
    for index, ref in enumerate(decision.modelRefs):
        name = ref.lora_name or ref.model
        if name not in served:
            message = f"no provider serves {name!r}: a request that is routed there fails"
            yield Oddity(("modelRefs", index), "model-not-served", message, "a backend_ref")
        if ref.weight is not None and ref.weight < 0:
            yield Oddity(("modelRefs", index, "weight"), "negative-weight", "it counts as 0", "0")
    kind = decision.algorithm.get("type")
    if decision.selector is None:
        message = f"the algorithm {kind} is not here yet: a request that it should choose for fails"
        yield Oddity(("algorithm", "type"), "algorithm-not-here", message, "static or weighted")
    for index, plugin in enumerate(decision.plugins):
        message = f"the plugin {normalised(plugin.type)} is not here yet: it does nothing"
        yield Oddity(("plugins", index), "plugin-not-here", message, "remove it")


def _of_rules(node: Node, scope: Scope, path: Path, *, root: bool = False) -> Iterator[Oddity]:
    if node.type:
        yield from _of_leaf(node, scope, path)
        return
    if root and node.is_fallback:
        return
    upper = node.operator.upper()
    if node.operator and upper not in _OPERATORS:
        meant = upper.strip() if upper.strip() in _OPERATORS else "OR"
        message = f"the operator {node.operator!r} is not trimmed or known: it counts as OR"
        fix = (((*path, "operator"), meant),)
        yield Oddity((*path, "operator"), "operator-is-or", message, f"operator: {meant}", fix)
    elif upper == "NOT" and len(node.conditions) != 1:
        yield from _not_of_many(node, path)
    elif not node.conditions and (upper != "AND"):
        yield Oddity(path, "never-matches", "there is nothing in it that could match", "conditions")
    for index, child in enumerate(node.conditions):
        yield from _of_rules(child, scope, (*path, "conditions", index))


def _not_of_many(node: Node, path: Path) -> Iterator[Oddity]:
    message = f"NOT has {len(node.conditions)} conditions and never matches"
    fix = (((*path, "conditions"), ANY_OF),) if node.conditions else ()
    yield Oddity(path, "not-of-many", message, "NOT of one OR", fix)


def _of_leaf(leaf: Node, scope: Scope, path: Path) -> Iterator[Oddity]:
    kind, name = leaf.kind, leaf.name.strip()
    if leaf.name != name and (kind, leaf.name) not in scope.signals and leaf.name not in scope.outputs:
        message = "the name is compared with its spaces at run time, so it never matches"
        yield Oddity((*path, "name"), "spaces-in-name", message, f"name: {name}", (((*path, "name"), name),))
    config = scope.signals.get((kind, name))
    role = config.names()[0] if config is not None else ""
    if kind == "authz" and config is not None and name == config.name and name != role:
        message = f"{name!r} is the binding, and only its role {role!r} is ever emitted: it never matches"
        yield Oddity(
            (*path, "name"), "authz-by-binding", message, f"name: {role}", (((*path, "name"), role),)
        )
    if kind == "complexity" and name.rpartition(":")[2] not in {"hard", "medium", "easy"}:
        message = "without :hard, :medium or :easy it never matches"
        yield Oddity((*path, "name"), "complexity-without-level", message, f"name: {name}:hard")
    if kind == "domain" and not scope.has_domains():
        message = f"no domain is declared: {name!r} is made, and stands for the category other"
        yield Oddity((*path, "name"), "domain-made", message, "declare it under routing.signals.domains")
    if kind != leaf.type and leaf.type.strip() != leaf.type:
        fix = (((*path, "type"), kind),)
        yield Oddity((*path, "type"), "spaces-in-type", "the type has spaces", f"type: {kind}", fix)
    if leaf.operator or leaf.conditions:
        message = "a node with a type is a leaf: its operator and conditions are not looked at"
        keys = [key for key in ("operator", "conditions") if key in leaf.model_fields_set]
        yield Oddity(path, "leaf-with-operator", message, "", tuple(((*path, key), None) for key in keys))
