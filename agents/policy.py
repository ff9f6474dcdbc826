"""A policy: the routing part of a v0.3 configuration, as one frozen value with a content hash.

Everything that can change a signal, a decision or a selection is in it; keys, endpoints and
listeners are settings and are not. Its identity is the SHA-256 of its JSON normal form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError, field_validator

from agents.complaints import Complaint
from agents.content import Identity
from agents.engine.reading import ruleset_of, top_k_of
from agents.engine.scalar import Evaluator
from agents.errors import ConfigError, PolicyMissing
from agents.exploration import Trial, trial_of
from agents.exploration_model import Exploration
from agents.loading import checks
from agents.loading.exploring import of_exploration, of_shadow_signals
from agents.loading.reading import Checked, Reading, read
from agents.loading.tree import read as read_tree
from agents.model_catalog import Model, ModelCard, Providers, provider_named
from agents.parts import Part
from agents.policy_model import (
    BYPASS,
    Beside,
    Deadlines,
    Decision,
    Entrypoint,
    Global,
    ModelRef,
    Recipe,
    Routing,
    errors_of,
)
from agents.selectors import Candidate
from agents.signals import SignalConfig
from schemas.decision import PlanStep

VERSION = "v0.3"
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class Policy(Part, Checked):
    """The policy as written, validated; see `Policy.parse` and `Policy.loads`."""

    settings: ClassVar[tuple[str, ...]] = ("listeners", "evaluation", "substitution")

    version: str = VERSION
    providers: Providers = Providers()
    routing: Routing = Routing()
    recipes: tuple[Recipe, ...] = ()
    entrypoints: tuple[Entrypoint, ...] = ()
    # The format's own key is `global`, which Python reserves.
    global_: Global = Field(default=Global(), alias="global")
    deadlines: Deadlines = Deadlines()
    # Left out of the normal form where they are not given, so that older hashes stay.
    exploration: Exploration | None = Field(default=None, exclude_if=lambda given: given is None)
    shadow_signals: Mapping[str, Rate] = Field(default_factory=dict, exclude_if=lambda given: not given)

    @field_validator("version")
    @classmethod
    def _version_is_the_formats(cls, _: str) -> str:
        """Write the version of the format, whatever the file says: the original never looks at it."""
        return VERSION

    @classmethod
    def parse(
        cls, text: str, where: str = "policy", environment: Mapping[str, str] = _NO_ENVIRONMENT
    ) -> Policy:
        """Return the policy in YAML *text*, references to *environment* substituted.

        Raises `ConfigError` naming *where*, line, column and path of what is wrong.
        """
        return cls.read(text, where, environment).accepted()

    @classmethod
    def read(
        cls, text: str, where: str = "policy", environment: Mapping[str, str] = _NO_ENVIRONMENT
    ) -> Reading[Policy]:
        """Return all that can be said of YAML *text*; raises `ConfigError` if it is no YAML document."""
        return read(cls, text, where, environment)

    @classmethod
    def loads(cls, normal_form: str) -> Policy:
        """Return the policy in its JSON normal form, nothing substituted; raises `ConfigError`."""
        where = "policy normal form"
        try:
            document = json.loads(normal_form)
            found = cls.model_validate(document)
            wrong = [each for each in found.complaints() if not each.portable]
        except ValidationError as error:
            raise ConfigError(f"{where}: " + "; ".join(errors_of(error)[:5])) from None
        except (ValueError, RecursionError):
            raise ConfigError(f"{where}: not valid JSON, or nested too deeply") from None
        if wrong:
            path = ".".join(map(str, wrong[0].path))
            raise ConfigError(f"{where}: {path}: {wrong[0].message}")
        return found

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over why this policy is refused, in the order in which the original finds it."""
        cards = self.routing.modelCards
        yield from checks.of_models(self.providers, cards)
        yield from checks.of_recipes(self.recipes, self.routing)
        taken = {card.name for card in cards} | {lora.name for card in cards for lora in card.loras}
        taken |= set(self.global_.router.auto_model_names)
        yield from checks.of_entrypoints(self.entrypoints, self.recipes, frozenset(taken))
        catalog = self.global_.model_catalog
        cards = cards or tuple(ModelCard(name=model.name) for model in self.providers.models)
        for complaint in checks.of_routing(self.routing, cards, catalog):
            yield complaint.below("routing")
        for index, recipe in enumerate(self.recipes):
            for complaint in checks.of_routing(recipe.routing, cards, catalog):
                yield complaint.below("recipes", index, "routing")
        yield from of_exploration(self)
        yield from of_shadow_signals(self)

    @property
    def scopes(self) -> tuple[tuple[str, Routing], ...]:
        """Every recipe's name and routing; "" is the root's."""
        return ("", self.routing), *((recipe.name.strip(), recipe.routing) for recipe in self.recipes)

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
        """Every model by name; an adapter is served as its model is, under its own name."""
        declared = {model.name: model for model in self.providers.models}
        adapters = {
            lora.name: declared[card.name].model_copy(
                update={"name": lora.name, "provider_model_id": lora.name}
            )
            for card in self.routing.modelCards
            if card.name in declared
            for lora in card.loras
        }
        return adapters | declared

    @cached_property
    def provider_names(self) -> tuple[str, ...]:
        """Every provider that a model lives at, sorted."""
        return tuple(sorted({model.provider for model in self.providers.models if model.provider}))

    def models_at(self, provider: str) -> tuple[str, ...]:
        """Return the models that live at *provider*, as declared."""
        return self._models_at.get(provider, ())

    @cached_property
    def _models_at(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for model in self.providers.models:
            found.setdefault(model.provider, []).append(model.name)
        return {provider: tuple(names) for provider, names in found.items()}

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Every signal role that some recipe demands, sorted."""
        shadows = (routing.beside(self.shadow_signals) for _, routing in self.scopes)
        demanded = {role for _, routing in self.scopes for role in routing.demanded}
        return tuple(sorted(demanded | {config.role for configs in shadows for config, _ in configs}))

    @cached_property
    def identity(self) -> Identity:
        """The headers that say who asks."""
        named = self.global_.services.authz.identity
        standard = Identity()
        return Identity(
            (named.user_id_header or standard.user_header).lower(),
            (named.user_groups_header or standard.groups_header).lower(),
        )

    def recipe_for(self, requested_model: str) -> str | None:
        """Return the recipe for a requested model: "" is the root's, None if no such model."""
        for entry in self.entrypoints:
            if requested_model in entry.model_names:
                return self._root if entry.recipe.strip() == checks.DEFAULT_RECIPE else entry.recipe.strip()
        if not requested_model or requested_model in self.global_.router.auto_model_names:
            return self._root
        return BYPASS if requested_model in self.models else None

    def recipe_named(self, name: str) -> str | None:
        """Return the recipe that files call *name*: nothing and ``default`` mean the root's; None if none."""
        name = name.strip()
        if name in {"", checks.DEFAULT_RECIPE}:
            return self._root
        return name if any(name == recipe.name.strip() for recipe in self.recipes) else None

    @property
    def _root(self) -> str:
        """The recipe of what is routed without a name: "", or the one called default if it is declared."""
        declared = any(recipe.name.strip() == checks.DEFAULT_RECIPE for recipe in self.recipes)
        return checks.DEFAULT_RECIPE if declared else ""

    def routing_of(self, recipe: str) -> Routing | None:
        """Return the routing of *recipe*, or None if it routes nothing (a bypass)."""
        if recipe == "":
            return self.routing
        return next((r.routing for r in self.recipes if r.name.strip() == recipe), None)

    @cached_property
    def evaluators(self) -> Mapping[str, Evaluator]:
        """Recipe ("" is the root's) -> what its rules decide, compiled once."""
        top_k = top_k_of(self.global_.model_catalog)
        return {name: Evaluator(ruleset_of(routing.model_dump(), top_k)) for name, routing in self.scopes}

    @cached_property
    def trials(self) -> Mapping[tuple[str, str], Trial]:
        """Recipe and decision -> how it explores, of those that do."""
        found = ((name, rule, trial_of(self, name, rule)) for name, r in self.scopes for rule in r.decisions)
        return {(name, rule.name): trial for name, rule, trial in found if trial is not None}

    @cached_property
    def dearest_trial(self) -> float:
        """The most that exploring can cost one request more, in USD."""
        return max((trial.dearest for trial in self.trials.values()), default=0.0)

    def demand(self, recipe: str) -> Mapping[str, tuple[SignalConfig, ...]]:
        """Return role -> signals that *recipe* needs; empty for a bypass."""
        routing = self.routing_of(recipe)
        return {} if routing is None else routing.demanded

    @cached_property
    def _beside(self) -> Mapping[str, tuple[Beside, ...]]:
        return {name: routing.beside(self.shadow_signals) for name, routing in self.scopes}

    def beside(self, recipe: str) -> tuple[Beside, ...]:
        """Return the shadow signals of *recipe* with their rates, as declared; empty for a bypass."""
        return self._beside.get(recipe, ())

    def plan(self, names: Sequence[str]) -> tuple[PlanStep, ...]:
        """Return the steps of a plan over models *names*, in order, but those that no provider serves."""
        timeout, attempts = int(self.deadlines.call_s * 1000), self.deadlines.attempts
        served = ((name, self.models[name].provider) for name in names if name in self.models)
        return tuple(PlanStep(provider, name, attempts, timeout) for name, provider in served if provider)

    def candidates(self, decision: Decision) -> tuple[Candidate, ...]:
        """Return the candidates of *decision*, the default model (if there is one) where it lists none."""
        if decision.modelRefs:
            return tuple(_candidate(ref) for ref in decision.modelRefs)
        default = self.providers.defaults.default_model
        return (Candidate(default, 1.0),) if default else ()

    def cost_usd(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price in USD of a call to *model*."""
        pricing = self.models[model].pricing
        prompt = prompt_tokens * pricing.prompt_per_1m
        return (prompt + completion_tokens * pricing.completion_per_1m) / 1_000_000


def _candidate(ref: ModelRef) -> Candidate:
    """Return *ref* as a selector sees it; an adapter goes by its own name, as providers know it."""
    weight = 1.0 if ref.weight is None else max(ref.weight, 0.0)
    return Candidate(ref.lora_name or ref.model, weight)


def endpoints_in(
    text: str, where: str = "policy", environment: Mapping[str, str] = _NO_ENVIRONMENT
) -> Mapping[str, str]:
    """Return provider -> base URL as the backend_refs of YAML *text* have them: they are settings.

    Raises `ConfigError` if the text cannot be read; what is no endpoint is left to `Policy.parse`.
    """
    document = read_tree(text, where, environment).value
    providers = document.get("providers") if isinstance(document, dict) else None
    models = providers.get("models") if isinstance(providers, dict) else None
    found: dict[str, str] = {}
    for model in models if isinstance(models, list) else ():
        refs = model.get("backend_refs") if isinstance(model, dict) else None
        for ref in refs if isinstance(refs, list) else ():
            if isinstance(ref, dict) and "name" in ref and "base_url" in ref:
                found[provider_named(str(ref["name"]))] = str(ref["base_url"])
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
