"""What the plugins of a decision are refused for; their settings are kept as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.complaints import Complaint
from agents.policy_model import Plugin

ALIASES = dict.fromkeys(("semantic-cache", "semantic_cache", "response-cache"), "response_cache")
KNOWN = frozenset(
    [
        "response_cache",
        "memory",
        "system_prompt",
        "header_mutation",
        "hallucination",
        "router_replay",
        "rag",
        "fast_response",
        "tools",
        "tool_selection",
        "request_params",
        "response_jailbreak",
        "context_compression",
        "image_gen",
        "prompt_cache",
        "shadow_dispatch",
        "provider_prompt_cache",
    ]
)
_STRICT: Mapping[str, frozenset[str]] = {
    "response_cache": frozenset(
        [
            "enabled",
            "mode",
            "scope",
            "semantic",
            "request_controls",
            "personalized",
            "revision",
            "allow_request_controls",
            "control_header",
            "similarity_threshold",
            "ttl_seconds",
            "polarity_guard",
        ]
    ),
    "response_jailbreak": frozenset({"enabled", "threshold", "action"}),
    "context_compression": frozenset(
        [
            "enabled",
            "mode",
            "budget",
            "targets",
            "scoring",
            "recovery",
            "request_controls",
            "failure_mode",
            "min_tokens",
            "target_tokens",
        ]
    ),
}


def normalised(kind: str) -> str:
    """Return the name that plugin type *kind* has here."""
    return ALIASES.get(kind, kind)


def of_plugins(plugins: tuple[Plugin, ...]) -> Iterator[Complaint]:
    """Iterate over what is wrong with *plugins*."""
    seen: set[str] = set()
    for index, plugin in enumerate(plugins):
        kind = normalised(plugin.type)
        if kind in seen:
            yield Complaint(("plugins",), f"the plugin {kind} is there twice")
        seen.add(kind)
        message = next(_wrong(kind, plugin.configuration), "")
        if message:
            yield Complaint(("plugins", index), message)


def _wrong(kind: str, configuration: Mapping[str, Any] | None) -> Iterator[str]:
    """Iterate over what is wrong with a plugin; what comes after the first may follow from it."""
    if kind not in KNOWN:
        yield f"no plugin has the type {kind!r}"
    elif configuration is None:
        yield f"the plugin {kind} needs a configuration"
    else:
        unknown = set(configuration) - _STRICT[kind] if kind in _STRICT else set()
        if unknown:
            yield f"the plugin {kind} has no setting {min(unknown)!r}"
        if kind == "fast_response" and not str(configuration.get("message") or "").strip():
            yield "the plugin fast_response needs a message"
        if kind == "response_jailbreak":
            yield from _jailbreak(configuration)


def _jailbreak(configuration: Mapping[str, Any]) -> Iterator[str]:
    threshold = configuration.get("threshold") or 0
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        yield "the threshold lies between 0 and 1"
    if configuration.get("action") not in {None, "", "header", "block", "none"}:
        yield "the action is header, block or none"
