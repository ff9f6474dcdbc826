"""A policy: the routing part of a v0.3 configuration, as one frozen value with a content hash.

Everything that can change a signal, a decision or a selection is in it; keys, endpoints and
listeners are settings and are not. Its identity is the SHA-256 of its JSON normal form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agents.errors import ConfigError, PolicyMissing
from agents.rules import MAX_DEPTH, Node
from agents.selectors import Candidate, SelectorConfig, selector
from agents.signals import SignalConfig, signal
from schemas.decision import PlanStep

_SETTINGS = ("listeners", "evaluation")
_BYPASS = "(bypass)"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pricing(_Part):
    """USD per million tokens."""

    currency: str = "USD"
    prompt_per_1m: float = Field(default=0.0, ge=0.0)
    cached_input_per_1m: float | None = Field(default=None, ge=0.0)
    completion_per_1m: float = Field(default=0.0, ge=0.0)


class BackendRef(_Part):
    """Where a model is served: `name` is the provider; endpoints and keys are settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")


class Model(_Part):
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


class Defaults(_Part):
    """What holds where a decision says nothing."""

    default_model: str | None = None


class Providers(_Part):
    """The models and what each costs."""

    defaults: Defaults = Defaults()
    models: tuple[Model, ...] = Field(min_length=1)


class ModelRef(_Part):
    """A candidate of a decision."""

    model: str
    weight: float = Field(default=1.0, ge=0.0)
    use_reasoning: bool = False


class Decision(_Part):
    """A rule and the candidates that answer when it matches."""

    name: str
    description: str = ""
    priority: int = 0
    rules: Node | None = None
    modelRefs: tuple[ModelRef, ...] = ()  # noqa: N815 - the format's own spelling
    algorithm: Mapping[str, Any] = Field(default_factory=lambda: {"type": "static"})

    @field_validator("algorithm")
    @classmethod
    def _algorithm_is_known(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        _selector_of(value)
        return value

    @cached_property
    def selector(self) -> SelectorConfig:
        """The way to choose among the candidates."""
        return _selector_of(self.algorithm)


def _selector_of(algorithm: Mapping[str, Any]) -> SelectorConfig:
    kind = algorithm.get("type")
    if kind not in selector:
        known = ", ".join(name for name, _ in selector)
        message = f"algorithm type {kind!r} is not one of: {known}"
        raise ValueError(message)
    unknown = set(algorithm) - {"type", kind}
    if unknown:
        message = f"algorithm has unknown keys {sorted(unknown)}; its settings go under {kind!r}"
        raise ValueError(message)
    return selector[str(kind)].model_validate(algorithm.get(str(kind)) or {})


class Routing(_Part):
    """Signals and the decisions over them."""

    strategy: str = Field(default="priority", pattern="^priority$")
    signals: Mapping[str, tuple[Mapping[str, Any], ...]] = Field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()

    @cached_property
    def declared(self) -> tuple[SignalConfig, ...]:
        """Every declared signal, in declaration order."""
        by_collection = {cls.collection: cls for _, cls in signal}
        return tuple(
            by_collection[collection].model_validate(entry)
            for collection, entries in self.signals.items()
            for entry in entries
        )

    @model_validator(mode="after")
    def _signals_are_known(self) -> Self:
        known = sorted(cls.collection for _, cls in signal)
        for collection in self.signals:
            if collection not in known:
                message = f"signals.{collection} is not supported; supported: {', '.join(known)}"
                raise ValueError(message)
        names = [_leaf_key(s) for s in self.declared]
        for name in names:
            if names.count(name) > 1:
                message = f"signal {name[0]}:{name[1]} is declared twice"
                raise ValueError(message)
        self._check_leaves(set(names))
        return self

    def _check_leaves(self, names: set[tuple[str, str]]) -> None:
        seen: set[str] = set()
        for decision in self.decisions:
            if decision.name in seen:
                message = f"decision {decision.name!r} is declared twice"
                raise ValueError(message)
            seen.add(decision.name)
            for leaf in decision.rules.leaves() if decision.rules else ():
                if (leaf.type, leaf.name) not in names:
                    message = f"decision {decision.name!r} refers to {leaf.leaf}, which is not declared"
                    raise ValueError(message)

    @cached_property
    def demanded(self) -> Mapping[str, tuple[SignalConfig, ...]]:
        """Role -> the signals of it that some decision refers to, in declaration order."""
        wanted = {
            (leaf.type, leaf.name) for d in self.decisions for leaf in (d.rules.leaves() if d.rules else ())
        }
        roles: dict[str, list[SignalConfig]] = {}
        for config in self.declared:
            if _leaf_key(config) in wanted:
                roles.setdefault(config.role, []).append(config)
        return {role: tuple(configs) for role, configs in roles.items()}


def _leaf_key(config: SignalConfig) -> tuple[str, str]:
    return str(type(config).model_fields["type"].default), config.name


class Recipe(_Part):
    """An isolated routing scope."""

    name: str
    description: str = ""
    routing: Routing


class Entrypoint(_Part):
    """Which requested model names run which recipe."""

    model_names: tuple[str, ...]
    recipe: str


class Router(_Part):
    """Names of a requested model that mean: route it."""

    auto_model_names: tuple[str, ...] = ("auto",)


class Global(_Part):
    """What holds for every recipe."""

    router: Router = Router()


class Deadlines(_Part):
    """How long things may take, in seconds; `attempts` bounds the calls to one model."""

    request_s: float = Field(default=86_400.0, gt=0)
    call_s: float = Field(default=60.0, gt=0)
    infer_s: float = Field(default=30.0, gt=0)
    attempts: int = Field(default=3, ge=1, le=10)


class Policy(_Part):
    """The policy as written, validated; see `Policy.parse` and `Policy.loads`."""

    version: str = "v0.3"
    providers: Providers
    routing: Routing = Routing()
    recipes: tuple[Recipe, ...] = ()
    entrypoints: tuple[Entrypoint, ...] = ()
    # The format's own key is `global`, which Python reserves.
    global_: Global = Field(default=Global(), alias="global")
    deadlines: Deadlines = Deadlines()

    @classmethod
    def parse(cls, text: str, where: str = "policy") -> Policy:
        """Return the policy in YAML *text*; raises `ConfigError` naming *where* and the path."""
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: not valid YAML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{where}: nested too deeply") from None
        if not isinstance(document, dict):
            raise ConfigError(f"{where}: a policy is a mapping with the keys providers and routing")
        return cls._validated({k: v for k, v in document.items() if k not in _SETTINGS}, where)

    @classmethod
    def loads(cls, normal_form: str) -> Policy:
        """Return the policy in its JSON normal form; raises `ConfigError`."""
        return cls._validated(json.loads(normal_form), "policy normal form")

    @classmethod
    def _validated(cls, document: dict[str, Any], where: str) -> Policy:
        try:
            return cls.model_validate(_without_settings(document))
        except ValidationError as error:
            lines = [f"{'.'.join(str(p) for p in e['loc']) or 'policy'}: {e['msg']}" for e in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(lines[:5])) from None
        except RecursionError:
            raise ConfigError(f"{where}: rules are nested deeper than {MAX_DEPTH}") from None

    @model_validator(mode="after")
    def _references_resolve(self) -> Self:
        known = set(self.models)
        if len(known) != len(self.providers.models):
            message = "providers.models: a model name is declared twice"
            raise ValueError(message)
        default = self.providers.defaults.default_model
        wanted = [("providers.defaults.default_model", default)] if default else []
        for scope, routing in self._scopes():
            for d in routing.decisions:
                wanted += [(f"{scope} decision {d.name!r}", ref.model) for ref in d.modelRefs]
                if not d.modelRefs and not default:
                    message = f"decision {d.name!r} has no modelRefs, and there is no default model"
                    raise ValueError(message)
        for place, model in wanted:
            if model not in known:
                message = f"{place} names model {model!r}, which providers.models does not declare"
                raise ValueError(message)
        names = {recipe.name for recipe in self.recipes}
        for entry in self.entrypoints:
            if entry.recipe not in names:
                message = f"an entrypoint names recipe {entry.recipe!r}, which is not declared"
                raise ValueError(message)
        return self

    def _scopes(self) -> Iterator[tuple[str, Routing]]:
        yield "routing", self.routing
        for recipe in self.recipes:
            yield f"recipe {recipe.name!r}", recipe.routing

    @cached_property
    def normal_form(self) -> str:
        """The JSON text that the hash is of: defaults filled in, keys sorted, no white space."""
        dumped = self.model_dump(mode="json", by_alias=True)
        return json.dumps(dumped, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the normal form, 64 hex digits."""
        return hashlib.sha256(self.normal_form.encode()).hexdigest()

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """Every model by name."""
        return {model.name: model for model in self.providers.models}

    @cached_property
    def provider_names(self) -> tuple[str, ...]:
        """Every provider that a model lives at, sorted."""
        return tuple(sorted({model.provider for model in self.providers.models}))

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Every signal role that some recipe demands, sorted."""
        return tuple(sorted({role for _, routing in self._scopes() for role in routing.demanded}))

    def recipe_for(self, requested_model: str) -> str | None:
        """Return the recipe for a requested model: "" is the root's, None if no such model."""
        for entry in self.entrypoints:
            if requested_model in entry.model_names:
                return entry.recipe
        if not requested_model or requested_model in self.global_.router.auto_model_names:
            return ""
        return _BYPASS if requested_model in self.models else None

    def routing_of(self, recipe: str) -> Routing | None:
        """Return the routing of *recipe*, or None if it routes nothing (a bypass)."""
        if recipe == "":
            return self.routing
        return next((r.routing for r in self.recipes if r.name == recipe), None)

    def demand(self, recipe: str) -> Mapping[str, tuple[SignalConfig, ...]]:
        """Return role -> signals that *recipe* needs; empty for a bypass."""
        routing = self.routing_of(recipe)
        return {} if routing is None else routing.demanded

    def plan(self, names: Sequence[str]) -> tuple[PlanStep, ...]:
        """Return the steps of a plan over models *names*, in order."""
        timeout = int(self.deadlines.call_s * 1000)
        return tuple(
            PlanStep(self.models[name].provider, name, self.deadlines.attempts, timeout) for name in names
        )

    def candidates(self, decision: Decision) -> tuple[Candidate, ...]:
        """Return the candidates of *decision*, the default model where it lists none."""
        if decision.modelRefs:
            return tuple(Candidate(ref.model, ref.weight) for ref in decision.modelRefs)
        return (Candidate(str(self.providers.defaults.default_model), 1.0),)

    def cost_usd(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price in USD of a call to *model*."""
        pricing = self.models[model].pricing
        prompt = prompt_tokens * pricing.prompt_per_1m
        return (prompt + completion_tokens * pricing.completion_per_1m) / 1_000_000


def _without_settings(document: dict[str, Any]) -> dict[str, Any]:
    """Return *document* with endpoints and keys, which are settings, dropped from backend_refs."""
    providers = document.get("providers")
    models = providers.get("models") if isinstance(providers, dict) else None
    if not isinstance(models, list):
        return document
    kept = []
    for model in models:
        refs = model.get("backend_refs") if isinstance(model, dict) else None
        if isinstance(refs, list):
            trimmed = [{"name": r["name"]} if isinstance(r, dict) and "name" in r else r for r in refs]
            kept.append({**model, "backend_refs": trimmed})
        else:
            kept.append(model)
    return {**document, "providers": {**providers, "models": kept}}  # type: ignore[dict-item]


def endpoints_in(text: str) -> Mapping[str, str]:
    """Return provider -> base URL as the backend_refs of YAML *text* have them: they are settings."""
    document = yaml.safe_load(text)
    found: dict[str, str] = {}
    for model in (document.get("providers") or {}).get("models") or ():
        for ref in model.get("backend_refs") or ():
            if isinstance(ref, dict) and "base_url" in ref:
                found[ref["name"]] = ref["base_url"]
    return found


class PolicyBook:
    """Every policy that this process has read, by hash."""

    def __init__(self, policies: Sequence[Policy] = ()) -> None:
        self._policies = {policy.hash: policy for policy in policies}

    def add(self, policy: Policy) -> None:
        """Add *policy*."""
        self._policies[policy.hash] = policy

    def __contains__(self, policy_hash: object) -> bool:
        """Tell whether the policy has been read."""
        return policy_hash in self._policies

    def __getitem__(self, policy_hash: str) -> Policy:
        """Return the policy; raises `PolicyMissing`."""
        try:
            return self._policies[policy_hash]
        except KeyError:
            raise PolicyMissing(policy_hash) from None

    def __iter__(self) -> Iterator[Policy]:
        """Iterate over the policies."""
        return iter(self._policies.values())
