"""What a policy's rules decide for signals as given: no request, no draw, no broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agents.engine.scalar import OK, Evaluator
from agents.engine.stages import Vector
from agents.engine.tracing import SignalUnknown, Verdict
from agents.errors import ConfigError
from agents.policy import Policy
from replay.vectors import tree_of
from schemas.signal import Observations

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rules came to: the winner's number (-1 for none), every decision, and the derived vector.

    `failed` is the leaf whose rule failed the request, "" otherwise; then nothing else is known.
    """

    winner: int
    verdicts: tuple[Verdict, ...]
    vector: Vector
    failed: str = ""


class Judge:
    """Judges signals by one *recipe* of *policy*; raises `ConfigError` if it has no such recipe."""

    def __init__(self, policy: Policy, recipe: str = "") -> None:
        found = policy.recipe_named(recipe)
        routing = None if found is None else policy.routing_of(found)
        if routing is None or found is None:
            known = ", ".join(name for name in policy.evaluators if name) or "none"
            raise ConfigError(f"the policy has no recipe {recipe!r}; recipes: {known}")
        self._policy = policy
        self._decisions = routing.decisions
        self.evaluator: Evaluator = policy.evaluators[found]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The decisions' names, in declaration order."""
        return tuple(rule.name for rule in self.evaluator.ruleset.rules)

    def judge(self, seen: Observations, *, absent: str = OK) -> Outcome:
        """Return what comes of *seen*; what is not in it did not match or, by *absent*, is unknown."""
        vector = self.evaluator.vector([seen], absent=absent)
        try:
            winner = self.evaluator.choose(vector).rule
        except SignalUnknown as unknown:
            return Outcome(-1, (), vector, unknown.leaf)
        verdicts = tuple(self.evaluator.explain(vector, number) for number in range(len(self.names)))
        return Outcome(winner, verdicts, vector)

    def models(self, winner: int) -> list[str]:
        """Return the models that decision *winner* lists; without a winner the default model."""
        if winner >= 0:
            return [ref.model for ref in self._decisions[winner].modelRefs]
        default = self._policy.providers.defaults.default_model
        return [default] if default else []

    def answer(self, seen: Observations, *, absent: str = OK, full: bool = False) -> Json:
        """Return what comes of *seen* as plain values; *full* adds every decision and what was derived."""
        outcome = self.judge(seen, absent=absent)
        won = outcome.verdicts[outcome.winner] if outcome.winner >= 0 else None
        answer: Json = {
            "decision": self.names[outcome.winner] if won else None,
            "confidence": won.confidence if won else None,
            "models": [] if outcome.failed else self.models(outcome.winner),
            "matched_rules": list(won.rules) if won else [],
            "trace": tree_of(won) if won else None,
            "strategy": self.evaluator.ruleset.strategy,
        }
        if outcome.failed:
            answer["failed"] = f"signal_unknown:{outcome.failed}"
        return answer | (self._everything(outcome) if full else {})

    def _everything(self, outcome: Outcome) -> Json:
        decisions = [
            {"name": n, "matched": v.matched, "confidence": v.confidence, "tree": tree_of(v, unknowns=True)}
            for n, v in zip(self.names, outcome.verdicts, strict=False)
        ]
        derived = {
            "scores": dict(self.evaluator.scores(outcome.vector)) if outcome.vector.scores else {},
            "outputs": dict(self.evaluator.outputs(outcome.vector)),
        }
        return {"decisions": decisions, "projection": derived}


def judged(
    entries: Sequence[Mapping[str, Any]], policy: Policy, rows: Sequence[Observations]
) -> Iterator[Json]:
    """Iterate over the answers to *entries*, whose signals are *rows*; raises `ConfigError` for a recipe."""
    judges: dict[str, Judge] = {}
    for entry, seen in zip(entries, rows, strict=True):
        recipe = str(entry.get("recipe") or "")
        if recipe not in judges:
            judges[recipe] = Judge(policy, recipe)
        yield {"id": entry.get("id"), **judges[recipe].answer(seen)}
