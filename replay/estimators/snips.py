"""Self-normalised inverse propensity scoring: indifferent to a shift of all rewards."""

from __future__ import annotations

from typing import ClassVar, Literal

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator, ratio


@estimator
class Snips(EstimatorConfig):
    """sum(w r) / sum(w) (Swaminathan and Joachims 2015)."""

    needs_model: ClassVar[bool] = False
    type: Literal["snips"] = "snips"

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the linearised terms of both ratios."""
        del model
        shown = log.inverse_observation
        value = ratio(log.weight * shown * log.filled, log.weight * shown)
        return Terms(value, value - ratio(shown * log.filled, shown))
