"""What an evaluation is made of: logged choices with propensities, and a target policy's probabilities.

Shapes throughout: n rows, k actions, p features. Rewards that were not observed are NaN; `observation` is
the probability with which a row's reward is observed, so that 1/observation makes up for those that are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SUPPORTED = 1e-9
"""A target's probability of logged actions that is more than the rounding of sums that are one."""


@dataclass(frozen=True)
class BanditLog:
    """Logged rows and what the target policy would have done on each.

    `taken` (n) indexes `actions`; `propensity` (n) is the logging policy's probability of what it took;
    `target` and `logged` (n, k) are both policies' probabilities of every action, `logged` None where only
    the taken action's is known; `features` (n, p); `cluster` (n) numbers sessions or users from 0.
    """

    actions: tuple[str, ...]
    taken: Ints
    propensity: Floats
    reward: Floats
    observation: Floats
    target: Floats
    logged: Floats | None
    features: Floats
    feature_names: tuple[str, ...]
    cluster: Ints

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.taken)

    @cached_property
    def observed(self) -> Bools:
        """Which rows have a reward (n)."""
        return ~np.isnan(self.reward)

    @cached_property
    def weight(self) -> Floats:
        """Target over logging probability of the taken action (n)."""
        return self.target[np.arange(self.n), self.taken] / self.propensity

    @cached_property
    def inverse_observation(self) -> Floats:
        """1/observation where the reward was observed, else 0 (n): Horvitz and Thompson (1952)."""
        return np.where(self.observed, 1.0 / np.where(self.observed, self.observation, 1.0), 0.0)

    @cached_property
    def filled(self) -> Floats:
        """The reward, 0 where it is missing; meant to be multiplied by `inverse_observation` (n)."""
        return np.where(self.observed, self.reward, 0.0)

    @cached_property
    def unsupported(self) -> Floats | None:
        """The target's probability of actions that the logging policy never takes (n), if that is known."""
        if self.logged is None:
            return None
        mass: Floats = np.where(self.logged <= 0.0, self.target, 0.0).sum(axis=1)
        return mass

    def rows(self, keep: Bools | Ints) -> BanditLog:
        """Return the log of the rows in *keep* alone."""
        return replace(
            self,
            taken=self.taken[keep],
            propensity=self.propensity[keep],
            reward=self.reward[keep],
            observation=self.observation[keep],
            target=self.target[keep],
            logged=None if self.logged is None else self.logged[keep],
            features=self.features[keep],
            cluster=np.unique(self.cluster[keep], return_inverse=True)[1],
        )

    def supported(self) -> BanditLog:
        """Return the log on which weighting can speak: the target over supported actions, renormalised.

        Rows on which the target takes only unsupported actions are left out. A deterministic target is
        thereby evaluated on the rows whose action the logging policy could have taken.
        """
        mass = self.unsupported
        if mass is None or not mass.any():
            return self
        assert self.logged is not None  # noqa: S101 - `unsupported` says so
        kept = self.rows(1.0 - mass > SUPPORTED)
        assert kept.logged is not None  # noqa: S101 - as above
        target = np.where(kept.logged > 0.0, kept.target, 0.0)
        return replace(kept, target=target / target.sum(axis=1, keepdims=True))
