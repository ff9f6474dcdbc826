"""A flat table of logged choices, that anyone can bring, as what the estimators take.

Columns: `request_id`, `cluster`?, `action`, `propensity` (of the action taken), `reward` (null if missing),
`observation`? (probability that this reward is observed), `target:<action>` (the target policy's probability
of each action), `logged:<action>`? (the logging policy's), `model:<action>`? (rewards predicted by a model of
yours), `x_*` (features), `cost_usd`? `latency_ms`? (what the action taken cost and took, null if unknown),
`prompt_tokens`? `completion_tokens`? Any other column can name slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agents.errors import InvalidRecord
from replay.bandit import BanditLog, Floats, Ints
from replay.estimators import Model

REQUIRED = ("request_id", "action", "propensity", "reward")
MEASURES = ("cost_usd", "latency_ms", "prompt_tokens", "completion_tokens")
"""Numbers besides the reward that a row may have, none of them negative; null where unknown."""

LARGEST = 1e100
"""Rewards and features beyond this are none: their squares could not be added up."""

_SUM = 1e-6
_LEAST = 1e-12
_MOST_LEVELS = 32
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_dictionary)


@dataclass(frozen=True)
class Table:
    """A table's log, what else it says, and how many later copies of a request were left out."""

    log: BanditLog
    model: Model | None
    observation_known: bool
    duplicates: int
    measures: Mapping[str, Floats]
    source: pa.Table

    def labels(self, column: str) -> list[str]:
        """Return each row's value in *column* as text, "" for null; raises `InvalidRecord`."""
        if column not in self.source.column_names:
            names = ", ".join(n for n in self.source.column_names if ":" not in n and not n.startswith("x_"))
            raise InvalidRecord(f"there is no column {column!r} to slice by; there are: {names}")
        return ["" if value is None else str(value) for value in self.source[column].to_pylist()]


def read_table(path: Path) -> Table:
    """Return the Parquet table at *path*; raises `InvalidRecord` saying which column and row is wrong."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        told = str(error).split("\n", 1)[0][:200]
        raise InvalidRecord(f"{path}: not a readable Parquet file ({type(error).__name__}: {told})") from None
    return table_of(table, str(path))


def table_of(table: pa.Table, where: str = "table") -> Table:
    """Return *table* checked and in arrays; raises `InvalidRecord`."""
    return _Reader(table, where).read()


class _Reader:
    def __init__(self, table: pa.Table, where: str) -> None:
        self._where = where
        missing = [name for name in REQUIRED if name not in table.column_names]
        if missing:
            self._fail(f"has no column {missing[0]!r}; required: {', '.join(REQUIRED)} and target:<action>")
        if not any(name.startswith("target:") for name in table.column_names):
            self._fail("has no column target:<action>, one for each action")
        doubled = [name for name in table.column_names if table.column_names.count(name) > 1]
        if doubled:
            self._fail(f"has two columns {doubled[0]!r}")
        codes = self._codes(table["request_id"], "request_id")
        first = np.sort(np.unique(codes, return_index=True)[1])
        self._duplicates = table.num_rows - len(first)
        self._table = table.take(pa.array(first)) if self._duplicates else table
        if self._table.num_rows == 0:
            self._fail("has no rows")
        self._ids = self._table["request_id"].to_pylist()

    def _fail(self, message: str) -> None:
        raise InvalidRecord(f"{self._where}: {message}")

    def _codes(self, column: pa.ChunkedArray, name: str, advice: str = "") -> Ints:
        """Return a number for each value of a column of ids; refuses nulls, and what is no single value."""
        kind = column.type
        if pa.types.is_nested(kind):
            self._fail(f"column {name!r} holds {kind}; write text or whole numbers")
        if column.null_count or (pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py()):
            self._fail(f"column {name!r} has nulls{advice}")
        encoded = pc.dictionary_encode(column).combine_chunks()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        numbers: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers

    def _refuse(self, name: str, bad: Floats | np.ndarray, message: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            count = int(bad.sum())
            self._fail(f"column {name!r}: {message} in {count} rows, first {self._ids[row]}")

    def read(self) -> Table:
        names = self._table.column_names
        taken, actions = self._actions()
        propensity = self._numbers("propensity")
        self._refuse("propensity", ~((propensity > 0.0) & (propensity <= 1.0 + _SUM)), "not in (0, 1]")
        self._refuse(
            "propensity", propensity < _LEAST, f"below {_LEAST:g}, which no draw can be trusted with,"
        )
        reward = self._numbers("reward", nullable=True)
        self._refuse("reward", np.abs(reward) > LARGEST, f"not finite, or beyond {LARGEST:g},")
        observation = self._observation(reward)
        target = self._policy("target:", actions)
        logged = self._policy("logged:", actions) if self._has("logged:") else None
        if logged is not None:
            stated = logged[np.arange(len(taken)), taken]
            self._refuse("propensity", np.abs(stated - propensity) > _SUM, "differs from logged:<action>")
        features, feature_names = features_of(self._table, self._where)
        log = BanditLog(
            actions=actions,
            taken=taken,
            propensity=propensity,
            reward=reward,
            observation=observation,
            target=target,
            logged=logged,
            features=features,
            feature_names=feature_names,
            cluster=self._clusters(),
        )
        measures = {name: self._measure(name) for name in MEASURES if name in names}
        model, known = self._model(actions), "observation" in names
        return Table(log, model, known, self._duplicates, measures, self._table)

    def _measure(self, name: str) -> Floats:
        numbers = self._numbers(name, nullable=True)
        self._refuse(name, (numbers > LARGEST) | (numbers < 0.0), f"negative, or beyond {LARGEST:g},")
        return numbers

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._table.column_names)

    def _numbers(self, name: str, *, nullable: bool = False) -> Floats:
        found = numbers_in(self._table, name, self._where)
        if not nullable:
            self._refuse(name, np.isnan(found), "null or not a number")
        return found

    def _actions(self) -> tuple[Ints, tuple[str, ...]]:
        self._codes(self._table["action"], "action")
        taken = pc.cast(self._table["action"], pa.string()).to_pylist()
        named = [
            name.split(":", 1)[1]
            for name in self._table.column_names
            if name.startswith(("target:", "logged:"))
        ]
        actions = tuple(dict.fromkeys([*named, *sorted(set(taken))]))
        index = {action: number for number, action in enumerate(actions)}
        return np.array([index[action] for action in taken], dtype=np.int64), actions

    def _policy(self, prefix: str, actions: tuple[str, ...]) -> Floats:
        """Return a policy's probabilities (n, k); an action without a column is never taken."""
        out = np.zeros((self._table.num_rows, len(actions)))
        for number, action in enumerate(actions):
            name = prefix + action
            if name in self._table.column_names:
                out[:, number] = self._numbers(name)
                self._refuse(name, (out[:, number] < 0.0) | (out[:, number] > 1.0 + _SUM), "not in [0, 1]")
        sums = out.sum(axis=1)
        self._refuse(prefix + "<action>", np.abs(sums - 1.0) > _SUM, "probabilities do not sum to 1")
        normalised: Floats = out / sums[:, None]
        return normalised

    def _observation(self, reward: Floats) -> Floats:
        if "observation" not in self._table.column_names:
            return np.ones(len(reward))
        found = self._numbers("observation", nullable=True)
        outside = ~((found > 0.0) & (found <= 1.0 + _SUM))
        self._refuse("observation", outside & ~np.isnan(reward), "not in (0, 1] where there is a reward")
        return np.where(outside, 1.0, found)

    def _clusters(self) -> Ints:
        """Number clusters in the order in which they begin; without the column each row is its own."""
        if "cluster" not in self._table.column_names:
            return np.arange(self._table.num_rows, dtype=np.int64)
        return self._codes(self._table["cluster"], "cluster", "; give such rows a cluster of their own")

    def _model(self, actions: tuple[str, ...]) -> Model | None:
        if not self._has("model:"):
            return None
        absent = [action for action in actions if f"model:{action}" not in self._table.column_names]
        if absent:
            self._fail(f"has columns model:<action>, but none for action {absent[0]!r}")
        return Model(np.stack([self._numbers(f"model:{action}") for action in actions], axis=1))


def features_of(table: pa.Table, where: str) -> tuple[Floats, tuple[str, ...]]:
    """Return the columns ``x_*`` of *table* as numbers (n, p), and their names; raises `InvalidRecord`."""
    columns: list[Floats] = []
    names: list[str] = []
    for name in table.column_names:
        if name.startswith("x_"):
            for made, numbers in _feature(table, name, where):
                names.append(made)
                columns.append(numbers)
    matrix = np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
    return matrix, tuple(names)


def _feature(table: pa.Table, name: str, where: str) -> list[tuple[str, Floats]]:
    """Return a number, with a column that says where it was absent; of text its commonest levels."""
    kind = table[name].type
    if any(tells(kind) for tells in _TEXTS):
        values = np.array([str(v) for v in table[name].to_pylist()])
        levels, counts = np.unique(values, return_counts=True)
        common = levels[np.argsort(-counts, kind="stable")][:_MOST_LEVELS]
        return [(f"{name}={level}", (values == level).astype(np.float64)) for level in common]
    numbers = numbers_in(table, name, where)
    absent = ~(np.abs(numbers) <= LARGEST)
    if not absent.any():
        return [(name, numbers)]
    level = float(numbers[~absent].mean()) if not absent.all() else 0.0
    return [(name, np.where(absent, level, numbers)), (f"{name}=absent", absent.astype(np.float64))]


def numbers_in(table: pa.Table, name: str, where: str) -> Floats:
    """Return column *name* of *table* as numbers, NaN for null; raises `InvalidRecord` if it holds none."""
    column = table[name]
    try:
        numbers = pc.cast(column, pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InvalidRecord(f"{where}: column {name!r} holds {column.type}, not numbers") from None
    found: Floats = np.asarray(numbers, dtype=np.float64)
    return found
