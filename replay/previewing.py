"""What a policy observes and decides for a request that nobody sent: heuristics and rules, no broker.

A policy and a request in, observations and the winner out; files are the business of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.battery import Battery
from agents.content import Content
from agents.engine.reading import ruleset_of, top_k_of
from agents.engine.scalar import OK, Evaluator
from agents.errors import Refused
from agents.policy import Policy
from agents.policy_model import Routing
from agents.refusal import identity_refusal, metadata_refusal
from agents.signals import Heuristic, SignalConfig, Unhosted
from schemas.signal import Observation, Observations

SKIPPED = "skipped"
_HEURISTIC_ONLY = "only heuristics are computed here"


@dataclass(frozen=True, slots=True)
class Preview:
    """What was observed, and what the rules came to; `decision` is "" where none matches."""

    rows: Sequence[Observation]
    decision: str
    confidence: float
    projections: Mapping[str, float]


class Previewer:
    """Observes and decides for one recipe of a policy; *every* observes all that is declared."""

    def __init__(self, policy: Policy, recipe: str = "", *, every: bool = False) -> None:
        named = policy.recipe_named(recipe)
        routing = None if named is None else policy.routing_of(named)
        self.routing = Routing() if routing is None else routing
        demanded = [config for configs in self.routing.demanded.values() for config in configs]
        self.configs = [c for c in self.routing.declared if every or c in demanded]
        self._battery = Battery([config for config in self.configs if is_heuristic(config)])
        self._others = [config for config in self.configs if not is_heuristic(config)]
        self.identity = policy.identity
        raw = self.routing.model_dump(mode="json", by_alias=True)
        top_k = top_k_of(policy.global_.model_catalog)
        self._evaluator = Evaluator(ruleset_of(raw, top_k))

    def observe(self, content: Content) -> list[Observation]:
        """Return a row for every signal: what needs a classifier is skipped."""
        others = [config.unobserved(SKIPPED, _HEURISTIC_ONLY) for config in self._others]
        return [*self._battery.observe(content), *others]

    def decide(self, rows: Sequence[Observation]) -> Preview:
        """Return what the rules come to over *rows*; a signal without a row did not match.

        Raises `agents.engine.tracing.SignalUnknown` if a rule says fail_request and its signal is unknown.
        """
        vector = self._evaluator.vector([Observations.of(list(rows))], absent=OK)
        chosen = self._evaluator.choose(vector)
        rules = self._evaluator.ruleset.rules
        winner = rules[chosen.rule].name if chosen.rule >= 0 else ""
        return Preview(rows, winner, chosen.confidence, self._evaluator.outputs(vector))


def is_heuristic(config: SignalConfig) -> bool:
    """Tell whether *config* is computed from the request alone."""
    return isinstance(config, Heuristic) and not isinstance(config, Unhosted)


def is_empty(content: Content) -> bool:
    """Tell whether there is nothing to look at: no text, no turn, no tool, no metadata."""
    shape = content.shape
    asked = shape.messages or shape.tool_definitions or shape.last_role
    return not (content.text or asked or content.metadata)


def refusal_of(policy: Policy, recipe: str, content: Content) -> tuple[int, Refused] | None:
    """Return the HTTP status and why the original would not route the request, None if it would."""
    document = content.document
    if not isinstance(document.get("model"), str):
        return 400, Refused("invalid_request", "model must be a string")
    refused = metadata_refusal(document)
    if refused is not None:
        return 400, refused
    refused = None if is_empty(content) else identity_refusal(policy, recipe, content.headers)
    return None if refused is None else (403, refused)
