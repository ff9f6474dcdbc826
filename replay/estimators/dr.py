"""Doubly robust: the model's prediction, corrected by weighted residuals; the default."""

from __future__ import annotations

from typing import Literal

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator


@estimator
class Dr(EstimatorConfig):
    """mean(sum_a target(a) q(a) + w (r - q(taken))) (Dudik, Langford and Li 2011), q cross-fitted."""

    type: Literal["dr"] = "dr"

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the corrected prediction per row, and its paired difference to the logging policy's."""
        residual = log.inverse_observation * (log.filled - model.of_taken(log))
        target = model.of_target(log)
        difference = target - model.of_logged(log) + (log.weight - 1.0) * residual
        return Terms(target + log.weight * residual, difference)
