"""Inverse propensity scoring: unbiased, and noisy where the policies differ."""

from __future__ import annotations

from typing import ClassVar, Literal

from replay.bandit import BanditLog
from replay.estimators import EstimatorConfig, Model, Terms, estimator, on_policy


@estimator
class Ips(EstimatorConfig):
    """mean(w r), w = target / propensity (Horvitz and Thompson 1952; Precup et al. 2000)."""

    needs_model: ClassVar[bool] = False
    type: Literal["ips"] = "ips"

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return w r per row."""
        del model
        logged = on_policy(log)
        return Terms(log.weight * logged, (log.weight - 1.0) * logged)
