"""What a policy is refused for once it has been decoded, in the order in which the original finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from agents.complaints import Complaint, Path
from agents.loading.decisions import of_decision, of_rules
from agents.loading.projections import of_projections
from agents.loading.references import Scope, bases_in
from agents.model_catalog import Model, ModelCard, Providers
from agents.policy_model import BYPASS, Entrypoint, Recipe, Routing
from agents.signals import SignalConfig

T = TypeVar("T")
DEFAULT_RECIPE = "default"
_STRATEGIES = frozenset({"", "priority", "confidence", "fuzzy"})


def repeated(names: Iterable[T]) -> T | None:
    """Return the first of *names* that was there before, or None."""
    seen: set[T] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def of_models(providers: Providers, cards: tuple[ModelCard, ...]) -> Iterator[Complaint]:
    """Iterate over what is wrong with the cards and with what serves the models."""
    for index, card in enumerate(cards):
        if not card.name:
            yield Complaint(("routing", "modelCards", "name"), f"card {index} has no name")
    twice = repeated(card.name for card in cards)
    if twice is not None:
        yield Complaint(("routing", "modelCards"), f"model {twice!r} has two cards")
    known = {card.name for card in cards}
    served = {model.name for model in providers.models}
    default = providers.defaults.default_model
    if default and default not in known | {lora.name for card in cards for lora in card.loras}:
        message = f"no model {default!r} has a card"
        portable = not cards and default in served
        yield Complaint(("providers", "defaults", "default_model"), message, portable=portable)
    twice = repeated(model.name for model in providers.models)
    if twice is not None:
        yield Complaint(("providers", "models"), f"model {twice!r} is declared twice")
    for index, model in enumerate(providers.models):
        for complaint in _of_model(model, providers, known):
            yield complaint.below("providers", "models", index)


def _of_model(model: Model, providers: Providers, known: set[str]) -> Iterator[Complaint]:
    if not model.name:
        yield Complaint(("name",), "the model has no name")
    elif model.name not in known:
        yield Complaint((), f"model {model.name!r} has no card", portable=not known)
    family = model.reasoning_family
    if family and family not in providers.defaults.reasoning_families:
        yield Complaint(("reasoning_family",), f"no family {family!r} in providers.defaults")
    priced = model.pricing.model_dump(exclude_defaults=True)
    said = model.reasoning_family or model.provider_model_id or model.api_format or model.external_model_ids
    if not model.backend_refs and not said and not priced:
        yield Complaint((), f"model {model.name!r} says neither where it is served nor anything else")


def of_routing(
    routing: Routing, cards: tuple[ModelCard, ...], catalog: Mapping[str, Any]
) -> Iterator[Complaint]:
    """Iterate over what is wrong with one routing scope; *catalog* is ``global.model_catalog``."""
    if routing.strategy not in _STRATEGIES:
        yield Complaint(("strategy",), "the strategy is priority, confidence or fuzzy")
    for collection, configs in routing.signals.items():
        yield from _of_collection(collection, configs)
    yield from _of_external(routing, catalog)
    scope = Scope.of(routing, cards, catalog)
    for index, decision in enumerate(routing.decisions):
        for complaint in of_rules(decision, scope):
            yield complaint.below("decisions", index)
    for complaint in of_projections(routing.projections, scope):
        yield complaint.below("projections")
    twice = repeated(decision.name for decision in routing.decisions)
    for index, decision in enumerate(routing.decisions):
        if not decision.name:
            yield Complaint(("decisions", index, "name"), "the decision has no name")
        elif decision.name == twice:
            yield Complaint(("decisions", index), f"decision {twice!r} is declared twice")
        for complaint in of_decision(decision, scope):
            yield complaint.below("decisions", index)


def _of_collection(collection: str, configs: tuple[SignalConfig, ...]) -> Iterator[Complaint]:
    fold = str.lower if collection == "metadata" else str
    seen: set[str] = set()
    for index, config in enumerate(configs):
        name = fold(config.name).strip()
        if not name:
            yield Complaint(("signals", collection, index, "name"), "the signal has no name")
        elif name in seen:
            path = ("signals", collection, index) if collection == "metadata" else ("signals", collection)
            yield Complaint(path, f"{config.name!r} is declared twice")
        seen.add(name)
        for complaint in config.complaints():
            yield complaint.below("signals", collection, index)


def _of_external(routing: Routing, catalog: Mapping[str, Any]) -> Iterator[Complaint]:
    """Iterate over signals that name a model or a knowledge base that the catalog does not have."""
    external, bases = _named(catalog, "external"), bases_in(catalog)
    for index, config in enumerate(routing.signals.get("kb", ())):
        if getattr(config, "kb", "") not in bases:
            yield Complaint(("signals", "kb", index), "it is not in global.model_catalog.kbs")
    for index, config in enumerate(routing.signals.get("embeddings", ())):
        path = ("signals", "embeddings", index)
        yield from _of_modality(getattr(config, "query_modality", ""), catalog, path)
    classifiers = routing.signals.get("classifiers", ())
    for index, config in enumerate(classifiers):
        found = external.get(str(getattr(config, "model", "")), {})
        if getattr(config, "kind", "") == "llm" and found.get("model_role") != "classification":
            message = "its model is not in global.model_catalog.external, with model_role classification"
            yield Complaint(("signals", "classifiers", index), message)
    if sum(getattr(config, "kind", "") == "local" for config in classifiers) > 1:
        yield Complaint(("signals", "classifiers"), "only one local classifier is supported")


def _of_modality(asked: str, catalog: Mapping[str, Any], path: Path) -> Iterator[Complaint]:
    """Iterate over why the encoder cannot compare queries of the *asked* modality."""
    found: Any = catalog
    for key in ("embeddings", "semantic", "embedding_config", "model_type"):
        found = found.get(key) if isinstance(found, dict) else None
    if asked not in ({"", "text", "image", "audio"} if found == "multimodal" else {"", "text"}):
        yield Complaint((*path, "query_modality"), f"the encoder does not take {asked!r}")


def _named(catalog: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    found = catalog.get(key)
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return {str(row.get("name")): row for row in rows if row.get("name")}


def of_recipes(recipes: tuple[Recipe, ...], root: Routing) -> Iterator[Complaint]:
    """Iterate over what is wrong with the names of recipes."""
    seen: set[str] = set()
    profile = bool(root.decisions or root.signals or root.projections.scores or root.projections.partitions)
    for index, recipe in enumerate(recipes):
        name = recipe.name.strip()
        if not name:
            yield Complaint(("recipes", "name"), f"recipe {index} has no name")
        elif name in seen or name == BYPASS:
            yield Complaint(("recipes", index), f"names must differ from each other and from {BYPASS}")
        elif name == DEFAULT_RECIPE and profile:
            yield Complaint(("recipes", index), "the routing at the top is the recipe of this name")
        seen.add(name)
        if recipe.routing.modelCards:
            yield Complaint(("recipes", index, "routing", "modelCards"), "cards are declared at the top")


def of_entrypoints(
    entrypoints: tuple[Entrypoint, ...], recipes: tuple[Recipe, ...], taken: frozenset[str]
) -> Iterator[Complaint]:
    """Iterate over what is wrong with the names that lead to recipes; *taken* are those of models."""
    names = {recipe.name.strip() for recipe in recipes} | {DEFAULT_RECIPE}
    claimed: set[str] = set()
    for index, entry in enumerate(entrypoints):
        if entry.recipe.strip() not in names:
            yield Complaint(("entrypoints", index), f"no recipe {entry.recipe!r} is declared")
        asked = [name.strip() for name in entry.model_names if name.strip()]
        if not asked:
            yield Complaint(("entrypoints", index, "model_names"), "no name leads here")
        for name in dict.fromkeys(asked):
            if name in claimed or name in taken:
                yield Complaint(("entrypoints", index), f"the name {name!r} already means something else")
            claimed.add(name)
