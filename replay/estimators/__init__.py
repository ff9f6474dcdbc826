"""Estimators of a target policy's value from a log: one file each, which registers itself.

An estimator turns rows into *terms*: numbers per row whose mean is the estimate and whose spread between
clusters is its error. Ratio estimators are linearised, so that one set of intervals serves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agents.registry import PluginConfig, Registry
from replay.bandit import BanditLog, Floats


@dataclass(frozen=True)
class Model:
    """Predicted rewards (n, k), each row's made without that row's own cluster (cross-fitting)."""

    predicted: Floats

    def of_taken(self, log: BanditLog) -> Floats:
        """Return the prediction for the action that was taken (n)."""
        return self.predicted[np.arange(log.n), log.taken]

    def of_target(self, log: BanditLog) -> Floats:
        """Return the target policy's expected prediction (n)."""
        expected: Floats = (log.target * self.predicted).sum(axis=1)
        return expected

    def of_logged(self, log: BanditLog) -> Floats:
        """Return the logging policy's expected prediction (n), or of what it took if that is all we know."""
        if log.logged is None:
            return self.of_taken(log)
        expected: Floats = (log.logged * self.predicted).sum(axis=1)
        return expected


@dataclass(frozen=True)
class Terms:
    """Per row (n): the target's value, and the target's minus the logging policy's on the same row."""

    value: Floats
    difference: Floats


class EstimatorConfig(PluginConfig):
    """Configuration of an estimator, which is also its behaviour."""

    needs_model: ClassVar[bool] = True

    def terms(self, log: BanditLog, model: Model) -> Terms:
        """Return the terms of every row; *model* is ignored by estimators that need none."""
        raise NotImplementedError


def on_policy(log: BanditLog) -> Floats:
    """Return terms of the logging policy's own value: rewards, missing ones made up for (n)."""
    return log.inverse_observation * log.filled


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return terms of sum(numerator) / sum(denominator), linearised (the delta method).

    Their mean is the ratio exactly. Raises ZeroDivisionError where the denominator sums to 0.
    """
    scale = float(denominator.mean())
    if scale == 0.0:
        raise ZeroDivisionError("no row has weight: the target never takes what was logged")
    value = float(numerator.mean()) / scale
    return value + (numerator - value * denominator) / scale


estimator: Registry[EstimatorConfig] = Registry("estimators")
