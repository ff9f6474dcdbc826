"""Models as configured: what each is said to be good for, what it costs, and which provider serves it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from agents.parts import Part

_NO_PROVIDER_NAME = re.compile(r"[^a-z0-9_-]+")
_LONGEST_NAME = 63


def provider_named(written: str) -> str:
    """Return *written* in the letters that a provider's topics may have."""
    return _NO_PROVIDER_NAME.sub("-", written.lower()).strip("-_")[:_LONGEST_NAME] or "provider"


class Pricing(Part):
    """Prices per million tokens."""

    currency: str = "USD"
    prompt_per_1m: float = 0.0
    cached_input_per_1m: float | None = None
    cache_write_per_1m: float | None = None
    completion_per_1m: float = 0.0


class BackendRef(Part):
    """Where a model is served: the name makes the provider; endpoints and keys are settings."""

    settings: ClassVar[tuple[str, ...]] = (
        "endpoint",
        "base_url",
        "protocol",
        "type",
        "api_key",
        "api_key_env",
        "api_version",
        "auth_header",
        "auth_prefix",
        "chat_path",
        "extra_headers",
    )
    name: str = ""
    provider: str = ""
    weight: float | None = None


class Model(Part):
    """A model that requests can be routed to."""

    settings: ClassVar[tuple[str, ...]] = ("catalog",)
    name: str = ""
    provider_model_id: str = ""
    api_format: str = ""
    reasoning_family: str = ""
    pricing: Pricing = Pricing()
    backend_refs: tuple[BackendRef, ...] = ()
    external_model_ids: Mapping[str, str] = Field(default_factory=dict)
    reasoning: Mapping[str, Any] = Field(default_factory=dict)
    reliability: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def provider(self) -> str:
        """Return the provider whose worker calls this model, "" if it is served nowhere.

        It is the name of the first backend, in the letters that a topic's name may have.
        """
        if not self.backend_refs:
            return ""
        first = self.backend_refs[0]
        return provider_named(first.name or first.provider or self.name)

    @property
    def wire_name(self) -> str:
        """Return the name that the provider knows this model by."""
        return self.provider_model_id or self.name


class Defaults(Part):
    """What holds where a decision says nothing; "" is none."""

    aliases: ClassVar[Mapping[str, str]] = {
        "model": "default_model",
        "reasoning_effort": "default_reasoning_effort",
    }
    default_model: str = ""
    default_reasoning_effort: str = ""
    reasoning_families: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)


class Providers(Part):
    """The models that are served and what each costs."""

    defaults: Defaults = Defaults()
    models: tuple[Model, ...] = ()


class Lora(Part):
    """An adapter of a model, which may be named wherever a model may."""

    name: str = ""
    description: str = ""


class ModelCard(Part):
    """What selection may know about a model; where any is declared, only declared models may be named."""

    settings: ClassVar[tuple[str, ...]] = (
        "display_name",
        "publisher",
        "presentation",
        "distribution",
        "family",
        "revision",
        "released_at",
        "knowledge_cutoff",
        "lifecycle",
    )
    name: str = ""
    param_size: str = ""
    context_window_size: int = 0
    max_output_tokens: int = 0
    description: str = ""
    capabilities: tuple[str, ...] = ()
    loras: tuple[Lora, ...] = ()
    quality_score: float = 0.0
    modality: str = ""
    modalities: Mapping[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
