"""What a policy is refused for once its parts have been read: names that lead nowhere, and the like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from agents.complaints import Complaint
from agents.model_catalog import ModelCard, Providers
from agents.policy_model import BYPASS, Decision, Entrypoint, Recipe, Routing, kind_of
from agents.rules import MAX_DEPTH
from agents.signals import SignalConfig

T = TypeVar("T")
_STRATEGIES = frozenset({"", "priority", "confidence"})


def repeated(names: Iterable[T]) -> T | None:
    """Return the first of *names* that was there before, or None."""
    seen: set[T] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def model_names(providers: Providers, cards: Iterable[ModelCard]) -> frozenset[str]:
    """Return every name by which a model may be referred to: models, cards and adapters."""
    declared = {model.name for model in providers.models}
    for card in cards:
        declared |= {card.name, *(lora.name for lora in card.loras)}
    return frozenset(declared)


def of_providers(providers: Providers, known: frozenset[str]) -> Iterator[Complaint]:
    """Iterate over what is wrong with the models that are served."""
    default = providers.defaults.default_model
    if default and default not in known:
        yield Complaint(("defaults", "default_model"), f"no model {default!r} is declared")
    twice = repeated(model.name for model in providers.models)
    if twice is not None:
        yield Complaint(("models",), f"model {twice!r} is declared twice")


def of_routing(routing: Routing, known: frozenset[str]) -> Iterator[Complaint]:
    """Iterate over what is wrong with one routing scope."""
    if routing.strategy not in _STRATEGIES:
        yield Complaint(("strategy",), "the strategy is priority or confidence")
    for collection, configs in routing.signals.items():
        yield from _of_collection(collection, configs)
    twice = repeated(decision.name for decision in routing.decisions)
    if twice is not None:
        yield Complaint(("decisions",), f"decision {twice!r} is declared twice")
    leaves = {(kind_of(config), name) for config in routing.declared for name in config.names()}
    leaves |= {
        ("projection", band.name) for mapping in routing.projections.mappings for band in mapping.outputs
    }
    for index, decision in enumerate(routing.decisions):
        for complaint in _of_decision(decision, leaves, known):
            yield complaint.below("decisions", index)


def _of_collection(collection: str, configs: tuple[SignalConfig, ...]) -> Iterator[Complaint]:
    twice = repeated(config.name.strip() for config in configs)
    if twice is not None:
        yield Complaint(("signals", collection), f"{twice!r} is declared twice")
    for index, config in enumerate(configs):
        for complaint in config.complaints():
            yield complaint.below("signals", collection, index)


def _of_decision(
    decision: Decision, leaves: set[tuple[str, str]], known: frozenset[str]
) -> Iterator[Complaint]:
    if decision.rules.depth > MAX_DEPTH:
        yield Complaint(("rules",), f"nested deeper than {MAX_DEPTH}")
        return
    for leaf in decision.rules.leaves():
        if (leaf.kind, leaf.name.strip()) not in leaves:
            yield Complaint(("rules",), f"refers to {leaf.leaf}, which is not declared")
    for index, ref in enumerate(decision.modelRefs):
        if ref.model not in known:
            yield Complaint(("modelRefs", index), f"no model {ref.model!r} is declared")


def of_recipes(recipes: tuple[Recipe, ...], entrypoints: tuple[Entrypoint, ...]) -> Iterator[Complaint]:
    """Iterate over what is wrong with the names of recipes and what leads to them."""
    names = [recipe.name for recipe in recipes]
    if len(set(names)) != len(names) or BYPASS in names:
        yield Complaint(("recipes",), f"names must differ from each other and from {BYPASS}")
    for index, entry in enumerate(entrypoints):
        if entry.recipe not in {*names, "default"}:
            yield Complaint(("entrypoints", index), f"no recipe {entry.recipe!r} is declared")
