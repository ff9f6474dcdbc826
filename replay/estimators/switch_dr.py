"""Switch-DR: doubly robust where the weight is small, the model alone where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from replay.bandit import BanditLog, Floats
from replay.estimators import EstimatorConfig, Model, Terms, estimator

_CANDIDATES = 12
_WIDTHS = 2.0
"""How many standard errors a candidate's interval has to either side (SLOPE)."""


@estimator
class SwitchDr(EstimatorConfig):
    """mean(sum_a target(a) q(a) + 1[w <= tau] w (r - q(taken))) (Wang, Agarwal and Dudik 2017).

    Without a *tau* it is chosen from the weights' quantiles by SLOPE (Su, Srinath and Krishnamurthy 2020):
    the smallest whose interval still meets those of all larger ones.
    """

    type: Literal["switch_dr"] = "switch_dr"
    tau: float | None = Field(default=None, gt=0.0)

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the terms under the threshold."""
        tau = self.tau if self.tau is not None else self.chosen(log, model)
        return Terms(*_terms(log, model, tau))

    def chosen(self, log: BanditLog, model: Model) -> float:
        """Return the threshold that SLOPE chooses; infinity is plain DR."""
        low, high = -np.inf, np.inf
        best = np.inf
        for tau in _candidates(log.weight):
            terms, _ = _terms(log, model, tau)
            centre = float(terms.mean())
            width = _WIDTHS * _clustered_error(terms, log)
            low, high = max(low, centre - width), min(high, centre + width)
            if low > high:
                return best
            best = tau
        return best


def _candidates(weight: Floats) -> Sequence[float]:
    """Return thresholds from infinity down to where few weights are left below."""
    quantiles = np.quantile(weight, np.linspace(1.0, 0.5, _CANDIDATES))
    return [np.inf, *sorted({float(q) for q in quantiles if q > 0.0}, reverse=True)]


def _terms(log: BanditLog, model: Model, tau: float) -> tuple[Floats, Floats]:
    residual = log.inverse_observation * (log.filled - model.of_taken(log))
    kept = np.where(log.weight <= tau, log.weight, 0.0)
    target = model.of_target(log)
    return target + kept * residual, target - model.of_logged(log) + (kept - 1.0) * residual


def _clustered_error(terms: Floats, log: BanditLog) -> float:
    sums = np.bincount(log.cluster, terms - terms.mean())
    return float(np.sqrt((sums**2).sum())) / log.n
