"""A made-up log of choices whose truth is known, and its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from replay.bandit import BanditLog
from replay.evaluation import Method
from replay.reporting.assembly import Wish, told, write
from tests.replay.bandits import as_table

NAMES = ("small", "large", "coder")
QUALITY = ((0.60, 0.80, 0.50), (0.35, 0.75, 0.60))
"""Mean reward of each model for easy and for hard requests."""
COST = np.array([0.0004, 0.006, 0.0012])


def choices(rows: int = 3000, seed: int = 3) -> tuple[BanditLog, np.ndarray, np.ndarray]:
    """Return a log, what each row cost, and every model's reward (a bench's full feedback)."""
    rng = np.random.default_rng(seed)
    logged = np.tile([0.6, 0.3, 0.1], (rows, 1))
    hard = (rng.random(rows) < 0.4).astype(int)
    outcomes = (rng.random((rows, 3)) < np.array(QUALITY)[hard]).astype(float)
    taken = (rng.random(rows)[:, None] > logged.cumsum(axis=1)[:, :-1]).sum(axis=1)
    target = np.where(hard[:, None] == 1, [0.05, 0.9, 0.05], [0.85, 0.1, 0.05])
    log = BanditLog(
        actions=NAMES,
        taken=taken,
        propensity=logged[np.arange(rows), taken],
        reward=outcomes[np.arange(rows), taken],
        observation=np.ones(rows),
        target=target,
        logged=logged,
        features=hard[:, None].astype(float),
        feature_names=("x_hard",),
        cluster=np.arange(rows, dtype=np.int64) // 2,
    )
    return log, COST[taken] * rng.lognormal(0.0, 0.4, rows), outcomes


def table_at(path: Path, rows: int = 3000, *, full: bool = False) -> Path:
    """Write the table of `choices` to *path*, with costs; *full* adds every model's reward."""
    log, cost, outcomes = choices(rows)
    table = as_table(log).append_column("cost_usd", [cost])
    if full:
        for number, name in enumerate(NAMES):
            table = table.append_column(f"outcome:{name}", [outcomes[:, number]])
    pq.write_table(table, path)
    return path


def report_of(folder: Path) -> Path:
    """Write a report of such a table below *folder* and return the page."""
    wish = Wish(None, None, table_at(folder / "choices.parquet"), Method(), ["signalbox", "replay", "report"])
    write(told(wish), folder / "report.html")
    return folder / "report.html"
