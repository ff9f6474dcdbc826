"""What a target policy would cost, and how long its calls would take: the same estimators, lower is better.

Prices are known, so what a model of cost has to guess is the length of the answer alone. Capacity that
requests share cannot be told from weights, and is not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.policy import Policy
from replay.bandit import BanditLog, Floats
from replay.estimators import Model
from replay.evaluation import DEFAULT, Evaluation, Method, evaluate
from replay.reward_model import cross_fitted
from replay.table import Table

SHARED = (
    "Latency and cost under shared capacity are not estimated by weighting: a policy that fills a provider, "
    "or warms a cache, changes them for requests that it does not route otherwise."
)
RELATIVE = 0.01
"""The smallest relative difference of a mean cost or latency that matters."""

_WORDS = {"better": "higher", "worse": "lower"}
_PER = 1_000_000.0
_TITLES = {"cost_usd": "the mean cost in USD", "latency_ms": "the mean time of answered calls in ms"}

Prices = Mapping[str, tuple[float, float]]
"""USD of a million prompt and a million completion tokens, by action."""


@dataclass(frozen=True)
class Measured:
    """The evaluation of a measure, and where its model came from."""

    name: str
    found: Evaluation
    model: str

    @property
    def word(self) -> str:
        """Whether the target's is higher or lower, or not enough evidence."""
        return _WORDS.get(self.found.verdict.word, self.found.verdict.word)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        said = self.found.verdict.sentence(self.found.differences[DEFAULT], _TITLES[self.name])
        return said.replace(f"The target policy is {self.found.verdict.word}", f"It would be {self.word}")

    def as_json(self) -> dict[str, Any]:
        """Return it in the shape of an evaluation."""
        return {
            **self.found.as_json(),
            "verdict": self.word,
            "sentence": self.sentence,
            "model": self.model,
        }


def measured(table: Table, name: str, method: Method, prices: Prices | None = None) -> Measured | None:
    """Return measure *name* (``cost_usd`` or ``latency_ms``) of *table*; None if no row has it.

    Rows without it are left out, and the estimand says so: an unanswered request has neither.
    """
    numbers = table.measures.get(name)
    if numbers is None or not np.isfinite(numbers).any():
        return None
    log = replace(table.log, reward=numbers, observation=np.ones(table.log.n))
    mean = float(np.nanmean(numbers))
    method = replace(method, detect=max(RELATIVE * mean, math.ulp(1.0)))
    model, how = None, str(method.model)
    if name == "cost_usd" and prices is not None:
        model = _priced(table, log, method, prices)
    if model is not None:
        how = "known prices, predicted completion tokens"
    found = evaluate(log, method, model=model, observation_known=False)
    needs = replace(found.verdict.needs, pairs=None)
    return Measured(name, replace(found, verdict=replace(found.verdict, needs=needs)), how)


def _priced(table: Table, log: BanditLog, method: Method, prices: Prices) -> Model | None:
    """Return each action's cost (n, k) from its price, the row's prompt and a model of answers' lengths.

    None if a price or the tokens are unknown.
    """
    prompt, lengths = table.measures.get("prompt_tokens"), table.measures.get("completion_tokens")
    if prompt is None or lengths is None or any(action not in prices for action in log.actions):
        return None
    shown = log.observed & np.isfinite(lengths) & np.isfinite(prompt)
    if not shown.any():
        return None
    counted = replace(log, reward=np.where(shown, lengths, np.nan))
    predicted = np.maximum(
        cross_fitted(counted, method.model, folds=method.folds, seed=method.seed).predicted, 0.0
    )
    per_prompt = np.array([prices[action][0] for action in log.actions])
    per_completion = np.array([prices[action][1] for action in log.actions])
    asked = np.where(np.isfinite(prompt), prompt, float(np.nanmean(prompt)))
    cost: Floats = (asked[:, None] * per_prompt + predicted * per_completion) / _PER
    return Model(cost)


def prices_of(policies: Sequence[Policy], actions: Sequence[str]) -> Prices:
    """Return the prices of *actions*, of the first of *policies* that has each; a failure costs nothing."""
    found: dict[str, tuple[float, float]] = {a: (0.0, 0.0) for a in actions if a.startswith("(")}
    for action in actions:
        for policy in policies:
            if action in policy.models:
                pricing = policy.models[action].pricing
                found.setdefault(action, (pricing.prompt_per_1m, pricing.completion_per_1m))
    return found
