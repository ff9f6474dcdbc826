"""What a policy says of exploring: where, how often, among which candidates, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from agents.parts import Part


class ExpectedTokens(Part):
    """The tokens of a request by which the cost of exploring is planned."""

    prompt: int = Field(default=1000, ge=0)
    completion: int = Field(default=500, ge=0)


class Explored(Part):
    """How one decision explores: with probability `epsilon`, uniformly among `candidates`.

    With the incumbent and one other listed, the other is chosen with epsilon / 2.
    """

    epsilon: float = Field(default=0.0, ge=0.0, le=1.0)
    candidates: tuple[str, ...] = ()


class Exploration(Part):
    """Which decisions explore, and what that may cost a day (UTC) more than not to explore.

    `decisions` are by name, those of a recipe as ``recipe/name``. `salt` names the draw; it is the
    recipe and decision unless given.
    """

    max_extra_usd_per_day: float | None = Field(default=None, ge=0.0)
    salt: str = ""
    tokens: ExpectedTokens = ExpectedTokens()
    decisions: Mapping[str, Explored] = Field(default_factory=dict)
