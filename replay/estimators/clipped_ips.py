"""Inverse propensity scoring with weights cut off: less noise, and a bias that is bounded and told."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator, on_policy


@estimator
class ClippedIps(EstimatorConfig):
    """mean(min(w, clip) r) (Ionides 2008; Bottou et al. 2013)."""

    needs_model: ClassVar[bool] = False
    type: Literal["clipped_ips"] = "clipped_ips"
    clip: float = Field(default=10.0, gt=0.0)

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return min(w, clip) r per row."""
        del model
        logged = on_policy(log)
        value = np.minimum(log.weight, self.clip) * logged
        return Terms(value, value - logged)

    def lost_weight(self, log: BanditLog) -> float:
        """Return 1 - mean(min(w, clip)) / mean(w): with rewards in [0, 1] the bias is within this share."""
        total = float(log.weight.sum())
        return 0.0 if total == 0.0 else 1.0 - float(np.minimum(log.weight, self.clip).sum()) / total
