"""What a policy document holds, part by part: models and prices, signals, rules and candidates.

Every part is frozen and refuses keys that it does not know; what plugins define (a signal, an
algorithm) is validated by the plugin, and written back with its defaults filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from agents.rules import MAX_DEPTH, Node
from agents.selectors import SelectorConfig, selector
from agents.signals import SignalConfig, signal

BYPASS = "(bypass)"
"""The recipe of a request that names a model itself."""

T = TypeVar("T")
_LONGEST_S = 31 * 86_400.0


def errors_of(error: ValidationError) -> list[str]:
    """Return *error* line by line as path and message; inputs are not quoted."""
    return [f"{'.'.join(str(p) for p in e['loc']) or 'policy'}: {e['msg']}" for e in error.errors()]


class Part(BaseModel):
    """A frozen piece of the document; numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pricing(Part):
    """USD per million tokens."""

    currency: str = "USD"
    prompt_per_1m: float = Field(default=0.0, ge=0.0)
    cached_input_per_1m: float | None = Field(default=None, ge=0.0)
    completion_per_1m: float = Field(default=0.0, ge=0.0)


class BackendRef(Part):
    """Where a model is served: `name` is the provider; endpoints and keys are settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")


class Model(Part):
    """A model that requests can be routed to."""

    name: str
    provider_model_id: str = ""
    pricing: Pricing = Pricing()
    backend_refs: tuple[BackendRef, ...] = Field(min_length=1)

    @property
    def provider(self) -> str:
        """Return the provider whose worker calls this model."""
        return self.backend_refs[0].name

    @property
    def wire_name(self) -> str:
        """Return the name that the provider knows this model by."""
        return self.provider_model_id or self.name


class Defaults(Part):
    """What holds where a decision says nothing."""

    default_model: str | None = None


class Providers(Part):
    """The models and what each costs."""

    defaults: Defaults = Defaults()
    models: tuple[Model, ...] = Field(min_length=1)


class ModelRef(Part):
    """A candidate of a decision."""

    model: str
    weight: float = Field(default=1.0, ge=0.0, le=1e9)
    use_reasoning: bool = False


class Decision(Part):
    """A rule and the candidates that answer when it matches."""

    name: str
    description: str = ""
    priority: int = 0
    rules: Node | None = None
    modelRefs: tuple[ModelRef, ...] = ()  # noqa: N815 - the format's own spelling
    algorithm: Mapping[str, Any] = Field(default_factory=lambda: {"type": "static"}, validate_default=True)

    @field_validator("algorithm")
    @classmethod
    def _algorithm_is_known(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        chosen = _selector_of(value)
        kind = str(value["type"])
        return {"type": kind, kind: chosen.model_dump(mode="json", by_alias=True, exclude={"type"})}

    @cached_property
    def selector(self) -> SelectorConfig:
        """The way to choose among the candidates."""
        return _selector_of(self.algorithm)


def _selector_of(algorithm: Mapping[str, Any]) -> SelectorConfig:
    kind = algorithm.get("type")
    if not isinstance(kind, str) or kind not in selector:
        known = ", ".join(name for name, _ in selector)
        message = f"algorithm type {kind!r} is not one of: {known}"
        raise ValueError(message)
    unknown = set(algorithm) - {"type", kind}
    if unknown:
        message = f"algorithm has unknown keys {sorted(map(str, unknown))}; its settings go under {kind!r}"
        raise ValueError(message)
    try:
        return selector[kind].model_validate(algorithm.get(kind) or {})
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
    """Signals and the decisions over them."""

    strategy: str = Field(default="priority", pattern="^priority$")
    signals: Signals = Field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()

    @cached_property
    def declared(self) -> tuple[SignalConfig, ...]:
        """Every declared signal: collections by name, then as declared."""
        return tuple(config for configs in self.signals.values() for config in configs)

    @model_validator(mode="after")
    def _leaves_resolve(self) -> Self:
        declared = [leaf_key(config) for config in self.declared]
        twice = _repeated(declared)
        if twice is not None:
            raise ValueError(f"signal {twice[0]}:{twice[1]} is declared twice")
        named = _repeated(decision.name for decision in self.decisions)
        if named is not None:
            raise ValueError(f"decision {named!r} is declared twice")
        known = set(declared)
        for decision in self.decisions:
            _check_rules(decision, known)
        return self

    @cached_property
    def demanded(self) -> Mapping[str, tuple[SignalConfig, ...]]:
        """Role -> the signals of it that some decision refers to, in declaration order."""
        wanted = {
            (leaf.type, leaf.name) for d in self.decisions for leaf in (d.rules.leaves() if d.rules else ())
        }
        roles: dict[str, list[SignalConfig]] = {}
        for config in self.declared:
            if leaf_key(config) in wanted:
                roles.setdefault(config.role, []).append(config)
        return {role: tuple(configs) for role, configs in roles.items()}

    @cached_property
    def demanded_keys(self) -> Mapping[tuple[str, str], str]:
        """Type and name of every demanded signal -> ``type:name``, role by role."""
        keys = (leaf_key(config) for configs in self.demanded.values() for config in configs)
        return {key: f"{key[0]}:{key[1]}" for key in keys}


def _repeated(names: Iterable[T]) -> T | None:
    """Return the first of *names* that was there before, or None."""
    seen: set[T] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_rules(decision: Decision, known: set[tuple[str, str]]) -> None:
    if decision.rules is None:
        return
    if decision.rules.depth > MAX_DEPTH:
        raise ValueError(f"decision {decision.name!r}: rules are nested deeper than {MAX_DEPTH}")
    for leaf in decision.rules.leaves():
        if (leaf.type, leaf.name) not in known:
            raise ValueError(f"decision {decision.name!r} refers to {leaf.leaf}, which is not declared")


def leaf_key(config: SignalConfig) -> tuple[str, str]:
    """Return the type and name by which rules refer to *config*."""
    return str(type(config).model_fields["type"].default), config.name


class Recipe(Part):
    """An isolated routing scope."""

    name: str = Field(min_length=1)
    description: str = ""
    routing: Routing


class Entrypoint(Part):
    """Which requested model names run which recipe."""

    model_names: tuple[str, ...]
    recipe: str


class Router(Part):
    """Names of a requested model that mean: route it."""

    auto_model_names: tuple[str, ...] = ("auto",)


class Global(Part):
    """What holds for every recipe."""

    router: Router = Router()


class Deadlines(Part):
    """How long things may take, in seconds; `attempts` bounds the calls to one model."""

    request_s: float = Field(default=86_400.0, gt=0, le=_LONGEST_S)
    call_s: float = Field(default=60.0, gt=0, le=_LONGEST_S)
    infer_s: float = Field(default=30.0, gt=0, le=_LONGEST_S)
    attempts: int = Field(default=3, ge=1, le=10)
