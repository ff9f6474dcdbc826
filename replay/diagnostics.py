"""What must hold before a log may judge a policy, and what refuses a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.bandit import BanditLog, Floats
from replay.intervals import Clustered

LEAST_ESS = 200.0
LEAST_CARRYING = 40.0
MOST_UNSUPPORTED = 0.05
FEWEST_CLUSTERS = 20
MOST_ERRORS = 4.0
LEAST_DRIFT = 0.02


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Numbers about weights and rewards; shares are of the rows given.

    `ess` is (sum w)^2 / sum w^2 over all rows (Kish 1965) and `ess_observed` that of w/observation over
    rows with a reward. `carrying` is the effective number of rows that carry the difference between the
    policies, see `carrying_rows`; it and `clusters_observed` are of rows with a reward, since no other
    shows any noise. `unsupported_share` is the target's probability of actions never logged, None if
    unknown; `mean_weight` should be 1 and is `weight_errors` standard errors away from it.
    """

    n: int
    clusters: int
    clusters_observed: int
    ess: float
    ess_observed: float
    carrying: float
    max_weight: float
    mean_weight: float
    weight_errors: float
    unsupported_share: float | None
    missing_share: float
    changed_share: float

    @property
    def independent(self) -> float:
        """So many independent terms carry the difference's spread at most: what bounds degrees of freedom."""
        return min(self.carrying, float(self.clusters_observed))

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why no verdict may be given, in words; empty if one may."""
        found = []
        if min(self.ess, self.ess_observed) < LEAST_ESS:
            least = min(self.ess, self.ess_observed)
            found.append(f"the effective sample size is {least:.0f}, below {LEAST_ESS:.0f}")
        if self.carrying < LEAST_CARRYING and self.changed_share > 0.0:
            found.append(
                f"about {self.carrying:.0f} rows carry the difference between the policies, "
                f"fewer than {LEAST_CARRYING:.0f}"
            )
        if self.unsupported_share is not None and self.unsupported_share > MOST_UNSUPPORTED:
            found.append(
                f"{self.unsupported_share:.1%} of the target's choices were never logged, "
                f"above {MOST_UNSUPPORTED:.0%}"
            )
        if self.clusters_observed < FEWEST_CLUSTERS:
            found.append(
                f"there are {self.clusters_observed} clusters with a reward, fewer than {FEWEST_CLUSTERS}"
            )
        return (*found, *self.drifted)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Why no verdict may be given on any part of the rows either: weights that do not average 1."""
        if abs(self.weight_errors) <= MOST_ERRORS or not abs(self.mean_weight - 1.0) > LEAST_DRIFT:
            return ()
        said = f"weights average {self.mean_weight:.3f} where they should average 1"
        why = "propensities are wrong, or choices were never logged"
        return (f"{said} ({self.weight_errors:+.1f} standard errors): {why}",)


def diagnose(log: BanditLog) -> Diagnostics:
    """Return the diagnostics of *log*, before anything is left out of it."""
    mass = log.unsupported
    kept = log.supported()
    shown = kept.rows(kept.observed)
    mean, error = _mean_weight(kept)
    off = mean - 1.0
    return Diagnostics(
        n=log.n,
        clusters=_clusters(log),
        clusters_observed=_clusters(shown),
        ess=ess(kept.weight),
        ess_observed=ess(kept.weight * kept.inverse_observation),
        carrying=carrying_rows(shown),
        max_weight=float(kept.weight.max(initial=0.0)),
        mean_weight=mean,
        weight_errors=off / error if error > 0.0 else 0.0 if not abs(off) >= LEAST_DRIFT else np.inf * off,
        unsupported_share=None if mass is None else float(mass.mean()),
        missing_share=float((~log.observed).mean()),
        changed_share=_changed(kept),
    )


def ess(weight: Floats) -> float:
    """Return (sum w)^2 / sum w^2: so many equally weighted rows would say as much; 0 without weight."""
    total = float((weight**2).sum())
    return float(weight.sum()) ** 2 / total if total > 0.0 else 0.0


def carrying_rows(log: BanditLog) -> float:
    """Return (sum E[v])^2 / sum E[v^2], v = ((w-1)/observation)^2: so many equally large terms vary as much.

    All rows of *log* have a reward; one that is observed rarely stands for many, and so does its noise.
    Rows on which the policies agree say nothing about their difference, however many they are. Where the
    logging policy is known the expectations are over its choices, so that the number does not depend on what
    it happened to take: refusing by what was drawn leaves the luckier logs, whose intervals miss (measured).
    """
    if log.logged is None:
        off = ((log.weight - 1.0) * log.inverse_observation) ** 2
        total, fourth = float(off.sum()), float((off**2).sum())
    else:
        safe = np.where(log.logged > 0.0, log.logged, 1.0)
        off = ((log.target / safe - 1.0) * log.inverse_observation[:, None]) ** 2
        total, fourth = float((log.logged * off).sum()), float((log.logged * off**2).sum())
    return total**2 / fourth if fourth > 0.0 else 0.0


def _mean_weight(log: BanditLog) -> tuple[float, float]:
    """Return the mean weight and its standard error, NaN where no row is supported."""
    if not log.n:
        return float("nan"), float("nan")
    data = Clustered.of(log.weight, log.cluster)
    return data.mean, data.error


def _clusters(log: BanditLog) -> int:
    return int(log.cluster.max(initial=-1)) + 1


def _changed(log: BanditLog) -> float:
    """Return the share of traffic that would go elsewhere: the policies' mean total variation distance.

    Where the logging policy is known at what it took only: mean(max(1 - w, 0)), whose expectation it is.
    All of it where no row is supported: the target takes nothing there that was logged.
    """
    if not log.n:
        return 1.0
    if log.logged is not None:
        return float(0.5 * np.abs(log.target - log.logged).sum(axis=1).mean())
    return float(np.maximum(1.0 - log.weight, 0.0).mean())
