"""Reward models from signals, cross-fitted by cluster: no row's prediction has seen its own session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from replay.bandit import BanditLog, Floats, Ints
from replay.estimators import Model

Kind = Literal["ridge", "boosting"]
_ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
_MOST_COLUMNS = 600
"""Interactions of features and actions are left out of the ridge beyond so many columns."""
_FEWEST_ROWS = 8
_TREES, _LEAVES = 80, 15

Predict = Callable[[Floats], Floats]
"""Features (m, p) to predictions (m, k)."""


def cross_fitted(log: BanditLog, kind: Kind = "ridge", *, folds: int = 5, seed: int = 0) -> Model:
    """Return predictions (n, k), each fold's made by a model of the other folds (Chernozhukov et al. 2018).

    Clusters are never split between folds; *folds* is at least 2.
    """
    predicted = np.empty((log.n, len(log.actions)))
    fold_of = _folds(log.cluster, folds, seed)
    # Threads that wait for each other cost more than they give at these sizes.
    with threadpool_limits(1):
        for fold in range(int(fold_of.max(initial=0)) + 1):
            out = fold_of == fold
            predicted[out] = fitted(log.rows(~out), kind)(log.features[out])
    return Model(predicted)


def _folds(cluster: Ints, folds: int, seed: int) -> Ints:
    clusters = int(cluster.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(clusters)
    return (order % max(min(folds, clusters), 1))[cluster].astype(np.int64)


def fitted(log: BanditLog, kind: Kind) -> Predict:
    """Return a model of the observed rewards of *log*, weighted by 1/observation."""
    shown = log.observed
    if int(shown.sum()) < _FEWEST_ROWS:
        level = float(log.reward[shown].mean()) if shown.any() else 0.0
        return lambda x: np.full((len(x), len(log.actions)), level)
    return _ridge(log) if kind == "ridge" else _boosting(log)


def _design(features: Floats, taken: Ints, actions: int) -> Floats:
    """Return columns: each action, each feature, and each feature under each action if that fits."""
    chosen = np.zeros((len(taken), actions))
    chosen[np.arange(len(taken)), taken] = 1.0
    parts = [chosen, features]
    if actions * (1 + features.shape[1]) <= _MOST_COLUMNS:
        parts.append((chosen[:, :, None] * features[:, None, :]).reshape(len(taken), -1))
    return np.hstack(parts)


def _ridge(log: BanditLog) -> Predict:
    shown, actions = log.observed, len(log.actions)
    centre, scale = _standard(log.features[shown])
    design = _design((log.features[shown] - centre) / scale, log.taken[shown], actions)
    model = RidgeCV(alphas=_ALPHAS).fit(design, log.reward[shown], sample_weight=_weights(log))

    def predict(features: Floats) -> Floats:
        standard = (features - centre) / scale
        columns = [
            model.predict(_design(standard, np.full(len(features), action), actions))
            for action in range(actions)
        ]
        return np.stack(columns, axis=1)

    return predict


def predictions(features: Floats, scores: Floats) -> Floats:
    """Return what a ridge of *scores* (n, k) on *features* (n, p) predicts for the same rows (n, k)."""
    if not features.shape[1]:
        return np.tile(scores.mean(axis=0), (len(scores), 1))
    centre, scale = _standard(features)
    design = (features - centre) / scale
    with threadpool_limits(1):
        made: Floats = RidgeCV(alphas=_ALPHAS).fit(design, scores).predict(design)
    return made.reshape(scores.shape)


def _boosting(log: BanditLog) -> Predict:
    shown, actions = log.observed, len(log.actions)
    model = HistGradientBoostingRegressor(
        max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False, random_state=0
    )
    design = np.column_stack([log.taken[shown], log.features[shown]])
    model.fit(design, log.reward[shown], sample_weight=_weights(log))

    def predict(features: Floats) -> Floats:
        columns = [
            model.predict(np.column_stack([np.full(len(features), action), features]))
            for action in range(actions)
        ]
        return np.stack(columns, axis=1)

    return predict


def _weights(log: BanditLog) -> Floats:
    return log.inverse_observation[log.observed]


def _standard(features: Floats) -> tuple[Floats, Floats]:
    if not features.shape[1]:
        return np.zeros(0), np.ones(0)
    scale = features.std(axis=0)
    return features.mean(axis=0), np.where(scale > 0.0, scale, 1.0)
