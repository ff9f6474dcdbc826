"""Keys that the original knew once and refuses now, and what it asks of the document before it is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.complaints import Complaint, Path

LAYOUT = "(layout: neither routing nor global present)"
_LEARNING = ("elo", "rl_driven", "gmtrouter", "bandit", "personalization")
_SELECTION = ("session_aware", "model_switch_gate", "lookup_tables", *_LEARNING)
_PROVIDERS = ("model_targets", "backends", "auth_profiles", "default_model", "reasoning_families")
_MODEL = (
    "access",
    "endpoints",
    "access_key",
    "param_size",
    "context_window_size",
    "description",
    "capabilities",
    "loras",
    "quality_score",
    "modality",
    "tags",
)
_ADAPTATIONS: Mapping[str, frozenset[str]] = {
    "": frozenset({"mode", "adaptation", "protection"}),
    "adaptation": frozenset({"mode", "candidate_set"}),
    "protection": frozenset({"mode", "stability_weight", "switch_margin"}),
}
_LEARNING_KEYS: Mapping[Path, frozenset[str]] = {
    (): frozenset({"enabled", "adaptation", "protection", "state_store"}),
    ("adaptation",): frozenset({"enabled", "candidate_set", "strategy"}),
    ("protection",): frozenset({"enabled", "scope", "identity", "tuning"}),
    ("protection", "identity"): frozenset({"headers"}),
    ("protection", "identity", "headers"): frozenset({"session", "conversation"}),
    ("protection", "tuning"): frozenset(
        {"idle_timeout_seconds", "min_turns_before_switch", "switch_margin", "stability_weight"}
    ),
}


def removed(document: Mapping[str, Any]) -> Iterator[Complaint]:
    """Iterate over what of *document* is refused for its keys alone, in the original's order."""
    yield from _aliases(document)
    yield from _deprecated(document)
    yield from _structure(document)
    yield from _decisions(document)
    yield from _learning(document)
    yield from _adaptations(document)


def _inside(value: Any, *path: str) -> Mapping[str, Any]:  # noqa: ANN401 - plain values
    """Return the mapping at *path* in *value*, an empty one if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _listed(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = value.get(key)
    return [_inside(item) for item in found] if isinstance(found, list) else []


def _gone(path: Path, instead: str = "") -> Complaint:
    return Complaint(path, "the key is no longer supported" + (f"; use {instead}" if instead else ""))


def _aliases(document: Mapping[str, Any]) -> Iterator[Complaint]:
    stores = _inside(document, "global", "stores")
    if "response_cache" in stores and "semantic_cache" in stores:
        message = "is given beside its old name semantic_cache"
        yield Complaint(("global", "stores", "response_cache"), message)


def _deprecated(document: Mapping[str, Any]) -> Iterator[Complaint]:
    routing, providers = _inside(document, "routing"), _inside(document, "providers")
    if "models" in routing:
        yield _gone(("routing", "models"), "routing.modelCards")
    for key in (*_PROVIDERS, "default_reasoning_effort"):
        if key in providers:
            yield _gone(("providers", key), "providers.defaults or providers.models")
    for index, model in enumerate(_listed(providers, "models")):
        yield from (
            _gone(("providers", "models", index, key), "routing.modelCards") for key in _MODEL if key in model
        )
    if "modules" in _inside(document, "global"):
        yield _gone(("global", "modules"), "global.model_catalog.modules")
    if "bert" in _inside(document, "global", "model_catalog", "embeddings"):
        yield _gone(("global", "model_catalog", "embeddings", "bert"))
    for index, decision in enumerate(_listed(routing, "decisions")):
        if "modelSelectionAlgorithm" in decision:
            yield _gone(("routing", "decisions", index, "modelSelectionAlgorithm"), "algorithm")


def _structure(document: Mapping[str, Any]) -> Iterator[Complaint]:
    signals = _inside(document, "routing", "signals")
    for index, rule in enumerate(_listed(signals, "structure")):
        if "normalize_by" in _inside(rule, "feature"):
            yield _gone(("routing", "signals", "structure", index, "feature", "normalize_by"), "density")
    for key in ("category_kb", "taxonomy"):
        if key in signals:
            yield _gone(("routing", "signals", key), "routing.signals.kb")
    if "classifiers" in _inside(document, "global", "model_catalog"):
        yield _gone(("global", "model_catalog", "classifiers"), "global.model_catalog.kbs")


def _decisions(document: Mapping[str, Any]) -> Iterator[Complaint]:
    for index, decision in enumerate(_listed(_inside(document, "routing"), "decisions")):
        for key in ("tool_scope", "allow_tools", "block_tools"):
            if key in decision:
                yield _gone(("routing", "decisions", index, key), "the plugin tools")


def _learning(document: Mapping[str, Any]) -> Iterator[Complaint]:
    instead = "global.router.learning"
    selection = _inside(document, "global", "router", "model_selection")
    where = ("global", "router", "model_selection")
    yield from (_gone((*where, key), instead) for key in _SELECTION if key in selection)
    method = selection.get("method")
    if isinstance(method, str) and method.strip() in {"session_aware", "lookup_tables", *_LEARNING}:
        yield _gone((*where, "method"), instead)
    for index, decision in enumerate(_listed(_inside(document, "routing"), "decisions")):
        algorithm = _inside(decision, "algorithm")
        kind = algorithm.get("type")
        if isinstance(kind, str) and kind.strip() in {"session_aware", *_LEARNING}:
            yield _gone(("routing", "decisions", index, "algorithm", "type"), instead)
        for key in ("session_aware", *_LEARNING):
            if key in algorithm:
                yield _gone(("routing", "decisions", index, "algorithm", key), instead)
    for path, known in _LEARNING_KEYS.items():
        found = _inside(document, "global", "router", "learning", *map(str, path))
        for key in sorted(set(found) - known):
            yield Complaint(("global", "router", "learning", *path, key), "the key is unknown")


def _adaptations(document: Mapping[str, Any]) -> Iterator[Complaint]:
    for index, decision in enumerate(_listed(_inside(document, "routing"), "decisions")):
        for part, known in _ADAPTATIONS.items():
            path = ("adaptations", part) if part else ("adaptations",)
            for key in sorted(set(_inside(decision, *path)) - known):
                yield Complaint(("routing", "decisions", index, *path, key), "the key is unknown")


def unserved(document: Mapping[str, Any]) -> Iterator[Complaint]:
    """Iterate over backends without an address, which the original alone refuses."""
    for index, model in enumerate(_listed(_inside(document, "providers"), "models")):
        for at, ref in enumerate(_listed(model, "backend_refs")):
            if not any(str(ref.get(key) or "").strip() for key in ("endpoint", "base_url")):
                path = ("providers", "models", index, "backend_refs", at)
                yield Complaint(path, "an endpoint or base_url is missing", portable=True)
