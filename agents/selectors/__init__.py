"""Selectors: one file per way to choose among candidates, each stating every propensity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.registry import PluginConfig, Registry


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could answer, with the weight that the policy gives it."""

    model: str
    weight: float


@dataclass(frozen=True, slots=True)
class Odds:
    """What a selector says of every candidate, aligned; propensities sum to one."""

    scores: tuple[float, ...]
    propensities: tuple[float, ...]


class SelectorConfig(PluginConfig):
    """Configuration of a selector; a subclass is also the selector itself.

    `salt` names the draw: two policies with the same salt draw alike for the same request.
    """

    salt: str = ""

    def odds(self, candidates: Sequence[Candidate]) -> Odds:
        """Return score and propensity of each of *candidates* (at least one)."""
        raise NotImplementedError


selector: Registry[SelectorConfig] = Registry("selectors")
