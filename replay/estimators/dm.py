"""The direct method: what a reward model predicts; as good as the model, and no better."""

from __future__ import annotations

from typing import Literal

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator


@estimator
class Dm(EstimatorConfig):
    """mean(sum_a target(a) q(a)). Its interval tells the spread of predictions, not the model's error."""

    type: Literal["dm"] = "dm"

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the target's expected prediction per row."""
        value = model.of_target(log)
        return Terms(value, value - model.of_logged(log))
