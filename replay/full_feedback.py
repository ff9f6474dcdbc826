"""Full outcome tables, every model's score on every question, as bandit logs whose true values are known.

A table has one row for each question and model: `question`, `model`, `score`, and if there are any `cost` and
features `x_*` of the question, which are taken from its first row. Parquet, or CSV (`.csv`, `.csv.gz`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from agents.errors import InvalidRecord
from replay.bandit import BanditLog, Floats, Ints
from replay.reward_model import predictions
from replay.table import features_of, numbers_in

REQUIRED = ("question", "model", "score")
ENOUGH = 0.95
"""A model that has answered a smaller share of the questions is left out, unless it was asked for."""

Policies = Mapping[str, Floats]


@dataclass(frozen=True)
class Outcomes:
    """Scores and costs (NaN if unknown) of every question and model (q, k), and features (q, p).

    `incomplete` questions lack some model and were left out, as were `copies` of a question and model.
    """

    questions: tuple[str, ...]
    models: tuple[str, ...]
    scores: Floats
    costs: Floats
    features: Floats
    feature_names: tuple[str, ...]
    incomplete: int = 0
    copies: int = 0
    left_out: tuple[str, ...] = ()

    @cached_property
    def means(self) -> Floats:
        """Each model's mean score (k)."""
        mean: Floats = self.scores.mean(axis=0)
        return mean

    @cached_property
    def ranked(self) -> Ints:
        """Models by mean score, the best first (k)."""
        return np.argsort(-self.means, kind="stable").astype(np.int64)

    def always(self, model: int) -> Floats:
        """Return the policy (q, k) that always takes *model*."""
        chosen: Floats = np.tile(np.eye(len(self.models))[model], (len(self.questions), 1))
        return chosen

    @cached_property
    def references(self) -> Policies:
        """Policies to see any other beside: best single model, uniform choice, oracle.

        The oracle takes the best model for each question, among equals the one that is better on the whole.
        """
        best = self.scores[:, self.ranked].argmax(axis=1)
        count = len(self.models)
        return {
            "best_single": self.always(int(self.ranked[0])),
            "random": np.full(self.scores.shape, 1.0 / count),
            "oracle": np.eye(count)[self.ranked[best]],
        }

    @cached_property
    def router(self) -> Floats:
        """The policy (q, k) that takes the model with the highest score predicted from the features."""
        chosen = np.eye(len(self.models))[predictions(self.features, self.scores).argmax(axis=1)]
        return np.asarray(chosen, dtype=np.float64)

    def exploring(self, epsilon: float) -> Floats:
        """Return the logging policy (q, k): the second best model, but a share *epsilon* evenly over all."""
        second = self.always(int(self.ranked[min(1, len(self.models) - 1)]))
        mixed: Floats = (1.0 - epsilon) * second + epsilon / len(self.models)
        return mixed

    def value(self, policy: Floats) -> float:
        """Return the mean score of *policy* (q, k) over the questions: the truth."""
        return float((policy * self.scores).sum(axis=1).mean())

    def cost(self, policy: Floats) -> float:
        """Return the mean cost of *policy*, NaN where any cost is unknown."""
        return float((policy * self.costs).sum(axis=1).mean())

    def evenly(self, most: int) -> Outcomes:
        """Return the outcomes of *most* models, the best, the worst and those evenly between by rank."""
        if len(self.models) <= most:
            return self
        places = np.unique(np.linspace(0, len(self.models) - 1, most).round().astype(np.int64))
        return self.of([self.models[number] for number in self.ranked[places]])

    def of(self, models: Sequence[str]) -> Outcomes:
        """Return the outcomes of *models* alone; raises `InvalidRecord` for one that is not there."""
        for name in models:
            if name not in self.models:
                raise InvalidRecord(f"no model {name!r} with outcomes; there are: {', '.join(self.models)}")
        at = [self.models.index(name) for name in models]
        return Outcomes(
            self.questions,
            tuple(models),
            self.scores[:, at],
            self.costs[:, at],
            self.features,
            self.feature_names,
            self.incomplete,
            self.copies,
            self.left_out,
        )


@dataclass(frozen=True)
class Drawn:
    """A bandit log drawn from outcomes, and which question (n) each row is of."""

    log: BanditLog
    question: Ints


def drawn(found: Outcomes, logging: Floats, target: Floats, rows: int, rng: np.random.Generator) -> Drawn:
    """Return *rows* questions drawn with replacement, each answered by one model as *logging* draws it.

    The table is the population: the truth of any policy is its mean over the table.
    """
    at = rng.integers(0, len(found.questions), rows)
    stated = logging[at]
    taken = (rng.random(rows)[:, None] > stated.cumsum(axis=1)[:, :-1]).sum(axis=1).astype(np.int64)
    log = BanditLog(
        actions=found.models,
        taken=taken,
        propensity=stated[np.arange(rows), taken],
        reward=found.scores[at, taken],
        observation=np.ones(rows),
        target=target[at],
        logged=stated,
        features=found.features[at],
        feature_names=found.feature_names,
        cluster=np.arange(rows, dtype=np.int64),
    )
    return Drawn(log, at)


def flat(found: Outcomes, drawing: Drawn) -> pa.Table:
    """Return *drawing* as the flat table that ``replay evaluate --table`` takes."""
    log = drawing.log
    data: dict[str, Any] = {
        "request_id": [f"{row}-{found.questions[at]}" for row, at in enumerate(drawing.question.tolist())],
        "action": [log.actions[action] for action in log.taken.tolist()],
        "propensity": log.propensity,
        "reward": log.reward,
    }
    for number, action in enumerate(log.actions):
        data[f"target:{action}"] = log.target[:, number]
        data[f"logged:{action}"] = log.logged[:, number] if log.logged is not None else None
    for number, name in enumerate(log.feature_names):
        data[name] = log.features[:, number]
    costs = found.costs[drawing.question, log.taken]
    if np.isfinite(costs).all():
        data["cost_usd"] = costs
    return pa.table(data)


def read_outcomes(path: Path, models: Sequence[str] = ()) -> Outcomes:
    """Return the outcomes at *path* of *models* (default: all with enough); raises `InvalidRecord`."""
    try:
        csv = path.name.endswith((".csv", ".csv.gz"))
        table = pyarrow.csv.read_csv(path) if csv else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidRecord(f"{path}: neither readable Parquet nor CSV ({type(error).__name__})") from None
    return outcomes_of(table, str(path), models)


def outcomes_of(table: pa.Table, where: str = "table", models: Sequence[str] = ()) -> Outcomes:
    """Return what *table* holds of *models* (default: all with enough); raises `InvalidRecord`."""
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise InvalidRecord(f"{where}: has no column {missing[0]!r}; required: {', '.join(REQUIRED)}")
    for name in REQUIRED:
        if table[name].null_count:
            raise InvalidRecord(f"{where}: column {name!r} has nulls")
    if not table.num_rows:
        raise InvalidRecord(f"{where}: has no rows")
    question, questions = _coded(table, "question")
    model, names = _coded(table, "model")
    pair, first = np.unique(question * len(names) + model, return_index=True)
    held = _grid(pair, np.ones(len(first)), (len(questions), len(names)))
    kept, left_out = _chosen(names, np.nan_to_num(held).mean(axis=0), models, where)
    whole = ~np.isnan(held[:, kept]).any(axis=1)
    if not whole.any():
        raise InvalidRecord(
            f"{where}: no question has a score of every model: {', '.join(names[k] for k in kept)}"
        )
    grids = [
        _grid(pair, numbers_in(table, name, where)[first], held.shape)
        if name in table.column_names
        else held * np.nan
        for name in ("score", "cost")
    ]
    scores = grids[0][whole][:, kept]
    if not np.isfinite(scores).all():
        raise InvalidRecord(f"{where}: column 'score' holds what is not finite")
    row = np.unique(question, return_index=True)[1][whole]
    features, feature_names = features_of(table.take(pa.array(row)), where)
    return Outcomes(
        questions=tuple(np.array(questions, dtype=object)[whole].tolist()),
        models=tuple(names[k] for k in kept),
        scores=scores,
        costs=grids[1][whole][:, kept],
        features=features,
        feature_names=feature_names,
        incomplete=int((~whole).sum()),
        copies=table.num_rows - len(pair),
        left_out=left_out,
    )


def _coded(table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    encoded = pc.dictionary_encode(pc.cast(table[name], pa.string()).combine_chunks())
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _grid(pair: Ints, values: Floats, shape: tuple[int, ...]) -> Floats:
    out = np.full(shape, np.nan)
    out.reshape(-1)[pair] = values
    return out


def _chosen(
    names: list[str], share: Floats, wanted: Sequence[str], where: str
) -> tuple[list[int], tuple[str, ...]]:
    """Return which models are looked at, and those left out for having answered too little."""
    absent = [name for name in wanted if name not in names]
    if absent:
        raise InvalidRecord(
            f"{where}: no outcomes of model {absent[0]!r}; there are: {', '.join(sorted(names))}"
        )
    if wanted:
        return [names.index(name) for name in dict.fromkeys(wanted)], ()
    kept = [number for number in range(len(names)) if share[number] >= ENOUGH]
    if not kept:
        raise InvalidRecord(
            f"{where}: no model has a score on {ENOUGH:.0%} of the questions; name some with --models"
        )
    return kept, tuple(name for number, name in enumerate(names) if number not in kept)
