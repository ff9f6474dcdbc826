"""Small logs of logged choices to evaluate."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from replay.bandit import BanditLog, Floats
from replay.estimators import Model


def made(seed: int, rows: int = 200, actions: int = 3, *, missing: bool = False) -> BanditLog:
    """Return a random log; *missing* leaves out rewards with a known probability that depends on them."""
    rng = np.random.default_rng(seed)
    logged = rng.dirichlet(np.ones(actions), rows) * 0.9 + 0.1 / actions
    taken = (rng.random(rows)[:, None] > logged.cumsum(axis=1)[:, :-1]).sum(axis=1)
    x = rng.normal(size=(rows, 2))
    reward = x[:, 0] + taken + rng.normal(size=rows)
    shown_with = np.where(reward > 0, 0.9, 0.5) if missing else np.ones(rows)
    shown = rng.random(rows) < shown_with
    return BanditLog(
        actions=tuple(f"m{i}" for i in range(actions)),
        taken=taken,
        propensity=logged[np.arange(rows), taken],
        reward=np.where(shown, reward, np.nan),
        observation=np.where(shown, shown_with, 1.0),
        target=rng.dirichlet(np.ones(actions), rows),
        logged=logged,
        features=x,
        feature_names=("x_0", "x_1"),
        cluster=np.arange(rows, dtype=np.int64),
    )


def model_for(log: BanditLog, seed: int = 0) -> Model:
    """Return arbitrary predictions."""
    predicted: Floats = np.random.default_rng(seed).normal(size=(log.n, len(log.actions)))
    return Model(predicted)


def as_table(log: BanditLog, *, logged: bool = True) -> pa.Table:
    """Return *log* as the flat table that anyone can bring."""
    columns = {
        "request_id": [f"r{i}" for i in range(log.n)],
        "cluster": [f"s{c}" for c in log.cluster],
        "action": [log.actions[a] for a in log.taken],
        "propensity": log.propensity,
        "reward": [None if np.isnan(r) else float(r) for r in log.reward],
    }
    for number, action in enumerate(log.actions):
        columns[f"target:{action}"] = log.target[:, number]
        if logged and log.logged is not None:
            columns[f"logged:{action}"] = log.logged[:, number]
    for number, name in enumerate(log.feature_names):
        columns[name] = log.features[:, number]
    if not log.observed.all():
        columns["observation"] = log.observation
    return pa.table(columns)
