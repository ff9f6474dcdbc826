"""Self-normalised doubly robust: for heavy weights."""

from __future__ import annotations

from typing import Literal

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator, ratio


@estimator
class Sndr(EstimatorConfig):
    """mean(sum_a target(a) q(a)) + sum(w (r - q(taken))) / sum(w) (Kallus and Uehara 2019)."""

    type: Literal["sndr"] = "sndr"

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the linearised terms."""
        shown = log.inverse_observation
        residual = shown * (log.filled - model.of_taken(log))
        value = model.of_target(log) + ratio(log.weight * residual, log.weight * shown)
        logged = model.of_logged(log) + ratio(residual, shown)
        return Terms(value, value - logged)
