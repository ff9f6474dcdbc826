"""What a policy document holds: signals, projections, decisions and their candidates, recipes.

Every part is frozen; what plugins define (a signal, an algorithm) is validated by the plugin, and
written back with its defaults filled in. The parts are as lenient as the original, which checks
little; `agents.loading` says what is refused, at which stage, and what is merely odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator

from agents.model_catalog import ModelCard, Providers
from agents.parts import Part
from agents.projection_model import Projections
from agents.rules import Node
from agents.selectors import SelectorConfig, selector
from agents.signals import SignalConfig, signal

__all__ = ["BYPASS", "Deadlines", "Decision", "Entrypoint", "Global", "ModelRef", "Providers", "Recipe"]
BYPASS = "(bypass)"
"""The recipe of a request that names a model itself."""

_LONGEST_S = 31 * 86_400.0
_PER_RULE = frozenset({"conversation", "metadata", "classifier"})
"""Types of which only the signals that are referred to are computed; of the others, all or none."""


def errors_of(error: ValidationError) -> list[str]:
    """Return *error* line by line as path and message; inputs are not quoted."""
    return [f"{'.'.join(str(p) for p in e['loc']) or 'policy'}: {e['msg']}" for e in error.errors()]


class ModelRef(Part):
    """A candidate of a decision; a weight that is not given counts as 1."""

    model: str = ""
    lora_name: str = ""
    weight: float | None = None
    use_reasoning: bool = False
    reasoning_effort: str = ""
    reasoning_description: str = ""
    reasoning_mode: str = ""


class Plugin(Part):
    """What happens to a request or an answer once a decision has been taken."""

    type: str = ""
    configuration: Mapping[str, Any] | None = None


class Decision(Part):
    """A rule and the candidates that answer when it matches.

    A `tier` of 0 is none. `safety` (ours) marks a decision that must not flip unseen; where it is false
    it is left out of the normal form, so that older hashes stay. What a stage other than the decision
    reads is kept as it is written.
    """

    name: str = ""
    description: str = ""
    priority: int = 0
    tier: int = 0
    rules: Node = Node()
    modelRefs: tuple[ModelRef, ...] = ()  # noqa: N815 - the format's own spelling
    algorithm: Mapping[str, Any] = Field(default_factory=lambda: {"type": "static"}, validate_default=True)
    plugins: tuple[Plugin, ...] = ()
    action: Mapping[str, Any] = Field(default_factory=dict)
    adaptations: Mapping[str, Any] = Field(default_factory=dict)
    candidateIterations: tuple[Mapping[str, Any], ...] = ()  # noqa: N815 - the format's own spelling
    emits: tuple[Mapping[str, Any], ...] = ()
    output_contract: str = ""
    output_contract_spec: Mapping[str, Any] = Field(default_factory=dict)
    annotations: Mapping[str, Any] = Field(default_factory=dict)
    safety: bool = Field(default=False, exclude_if=lambda marked: not marked)

    @field_validator("algorithm")
    @classmethod
    def _algorithm_has_its_defaults(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fill in the defaults of an algorithm that is here; one that is not is kept as written."""
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in selector:
            return value
        chosen = _selector_of(kind, value)
        settings = chosen.model_dump(mode="json", by_alias=True, exclude={"type"})
        return {**value, "type": kind, kind: settings}

    @cached_property
    def selector(self) -> SelectorConfig | None:
        """The way to choose among the candidates, None for an algorithm that is not here yet."""
        kind = self.algorithm.get("type")
        return _selector_of(kind, self.algorithm) if isinstance(kind, str) and kind in selector else None


def _selector_of(kind: str, algorithm: Mapping[str, Any]) -> SelectorConfig:
    given = algorithm.get(kind) or {}
    if kind == "static":  # in the original it has no settings, so whatever is there is an unknown key
        given = {key: given[key] for key in selector[kind].model_fields if key != "type" and key in given}
    try:
        return selector[kind].model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(f"{kind}.{line}" for line in errors_of(error))) from None


def _signals_of(collections: object) -> Mapping[str, tuple[SignalConfig, ...]]:
    """Return the signals in *collections*, in an order that does not depend on how a file writes them.

    The normal form sorts keys; a process that reads it back must see the same declaration order.
    """
    if not isinstance(collections, Mapping):
        raise ValueError("signals is a mapping of collections, such as keywords or embeddings")  # noqa: TRY004 - pydantic's way
    by_collection = {cls.collection: cls for _, cls in signal}
    unknown = sorted(str(name) for name in collections if name not in by_collection)
    if unknown:
        raise ValueError(f"{unknown[0]} is not supported; supported: {', '.join(sorted(by_collection))}")
    return {name: _collection_of(by_collection[name], collections[name]) for name in sorted(collections)}


def _collection_of(cls: type[SignalConfig], entries: object) -> tuple[SignalConfig, ...]:
    if not isinstance(entries, list | tuple):
        raise ValueError(f"{cls.collection} is a list of signals")  # noqa: TRY004 - pydantic's way
    found = []
    for index, entry in enumerate(entries):
        try:
            found.append(cls.model_validate(entry))
        except ValidationError as error:
            lines = errors_of(error)
            raise ValueError("; ".join(f"{cls.collection}.{index}.{line}" for line in lines)) from None
    return tuple(found)


Signals = Annotated[Mapping[str, tuple[SerializeAsAny[SignalConfig], ...]], BeforeValidator(_signals_of)]


class Routing(Part):
    """Signals, what is derived from them, and the decisions over both.

    `untiered` is ours: where any matched decision has a tier, one without comes ``first`` in the
    original (the default); ``last`` lets tier 1 win.
    """

    strategy: str = ""
    untiered: Literal["first", "last"] = "first"
    modelCards: tuple[ModelCard, ...] = ()  # noqa: N815 - the format's own spelling
    signals: Signals = Field(default_factory=dict)
    projections: Projections = Projections()
    decisions: tuple[Decision, ...] = ()
    candidate_requirements: Mapping[str, Any] = Field(default_factory=dict)
    model_bindings: Mapping[str, Any] = Field(default_factory=dict)
    data_policy: Mapping[str, Any] = Field(default_factory=dict)
    fallback: Mapping[str, Any] = Field(default_factory=dict)

    @cached_property
    def declared(self) -> tuple[SignalConfig, ...]:
        """Every declared signal: collections by name, then as declared."""
        return tuple(config for configs in self.signals.values() for config in configs)

    @cached_property
    def referenced(self) -> frozenset[tuple[str, str]]:
        """Type and name of every signal that a decision refers to, directly or by way of another."""
        found: set[tuple[str, str]] = set()
        open_ = [(leaf.kind, leaf.name) for d in self.decisions for leaf in d.rules.leaves()]
        while open_:
            key = open_.pop()
            if key not in found:
                found.add(key)
                open_.extend(self._needed_by(key))
        return frozenset(found)

    def _needed_by(self, key: tuple[str, str]) -> Iterator[tuple[str, str]]:
        """Iterate over what the signal or projection *key* is derived from."""
        kind, name = key
        if kind == "projection":
            for mapping in self.projections.mappings:
                if any(output.name == name for output in mapping.outputs):
                    yield "projection_source", mapping.source
        elif kind == "projection_source":
            yield from self._read_by(name)
        for config in self.declared:
            if kind_of(config) == kind:
                yield from ((leaf.kind, leaf.name) for leaf in config.conditions())

    def _read_by(self, score: str) -> Iterator[tuple[str, str]]:
        for candidate in self.projections.scores:
            for term in candidate.inputs if candidate.name == score else ():
                if term.type == "projection":
                    yield "projection_source", term.name
                    yield "projection", term.name
                else:
                    yield ("kb", "") if term.type == "kb_metric" else (term.type, term.name)

    @cached_property
    def demanded(self) -> Mapping[str, tuple[SignalConfig, ...]]:
        """Role -> the signals of it that some decision needs, in declaration order.

        As in the original all signals of a type are observed if one of them is needed, since the best
        of a type is chosen among all; of conversation, metadata and classifier only those referred to.
        """
        kinds = {kind for kind, _ in self.referenced}
        roles: dict[str, list[SignalConfig]] = {}
        for config in self.declared:
            kind = kind_of(config)
            wanted = (kind, config.name) in self.referenced if kind in _PER_RULE else kind in kinds
            if wanted:
                roles.setdefault(config.role, []).append(config)
        return {role: tuple(configs) for role, configs in roles.items()}

    def beside(self, rates: Mapping[str, float]) -> tuple[Beside, ...]:
        """Return the signals that *rates* (by ``type:name``) asks for beside those demanded, as declared.

        As with `demanded`, one signal of a type brings the others, at the highest of their rates.
        """
        highest: dict[str, float] = {}
        for key in {leaf_key(config) for config in self.declared}:
            highest[key[0]] = max(highest.get(key[0], 0.0), rates.get(f"{key[0]}:{key[1]}", 0.0))
        keyed = ((config, leaf_key(config)) for config in self.declared)
        found = (
            (config, rates.get(f"{key[0]}:{key[1]}", 0.0) if key[0] in _PER_RULE else highest[key[0]])
            for config, key in keyed
            if key not in self.demanded_keys
        )
        return tuple((config, rate) for config, rate in found if rate > 0.0)

    @cached_property
    def demanded_keys(self) -> Mapping[tuple[str, str], str]:
        """Type and name of every demanded signal -> ``type:name``, role by role."""
        keys = (leaf_key(config) for configs in self.demanded.values() for config in configs)
        return {key: f"{key[0]}:{key[1]}" for key in keys}


Beside = tuple[SignalConfig, float]
"""A signal that is observed though no decision demands it, and the share of requests of which it is."""


def kind_of(config: SignalConfig) -> str:
    """Return the type by which rules refer to *config*."""
    return str(type(config).model_fields["type"].default)


def leaf_key(config: SignalConfig) -> tuple[str, str]:
    """Return the type and name under which *config* is observed."""
    return kind_of(config), config.observed_name


class Recipe(Part):
    """An isolated routing scope."""

    name: str = ""
    description: str = ""
    routing: Routing = Routing()


class Entrypoint(Part):
    """Which requested model names run which recipe."""

    model_names: tuple[str, ...] = ()
    recipe: str = ""


class Router(Part):
    """Names of a requested model that mean: route it."""

    settings: ClassVar[tuple[str, ...]] = (
        "auto_model_name",
        "clear_route_cache",
        "config_source",
        "fallback",
        "include_config_models_in_list",
        "skip_processing",
        "strategy",
        "streamed_body",
    )
    auto_model_names: tuple[str, ...] = ("auto",)
    model_selection: Mapping[str, Any] = Field(default_factory=dict)
    learning: Mapping[str, Any] = Field(default_factory=dict)


class Identity(Part):
    """The headers that say who asks."""

    user_id_header: str = "x-authz-user-id"
    user_groups_header: str = "x-authz-user-groups"


class Authz(Part):
    """How roles are bound; unless `fail_open`, a request without a user is refused where authz is used."""

    settings: ClassVar[tuple[str, ...]] = ("providers",)
    fail_open: bool = False
    identity: Identity = Identity()


class Services(Part):
    """The services that can change a signal."""

    settings: ClassVar[tuple[str, ...]] = (
        "api",
        "management_api",
        "observability",
        "ratelimit",
        "response_api",
        "router_replay",
        "startup_status",
    )
    authz: Authz = Authz()


class Global(Part):
    """What holds for every recipe.

    `model_catalog` is kept as it is written (classifiers, knowledge bases, prototype banks), but for
    addresses and keys, which are settings.
    """

    settings: ClassVar[tuple[str, ...]] = ("stores", "integrations")
    router: Router = Router()
    services: Services = Services()
    model_catalog: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("model_catalog", mode="before")
    @classmethod
    def _without_settings(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the document holds
        return _public(value)


_PRIVATE = frozenset(
    {
        "llm_endpoint",
        "endpoint",
        "endpoints",
        "base_url",
        "address",
        "port",
        "headers",
        "access_key",
        "api_key",
        "api_key_env",
    }
)


def _public(value: Any) -> Any:  # noqa: ANN401 - plain values
    """Return *value* without the keys below it that say where something is, or how to get in."""
    if isinstance(value, Mapping):
        return {key: _public(inner) for key, inner in value.items() if key not in _PRIVATE}
    return [_public(inner) for inner in value] if isinstance(value, list) else value


class Deadlines(Part):
    """How long things may take, in seconds; `attempts` bounds the calls to one model."""

    request_s: float = Field(default=86_400.0, gt=0, le=_LONGEST_S)
    call_s: float = Field(default=60.0, gt=0, le=_LONGEST_S)
    infer_s: float = Field(default=30.0, gt=0, le=_LONGEST_S)
    attempts: int = Field(default=3, ge=1, le=10)
