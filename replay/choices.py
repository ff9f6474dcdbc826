"""A log's choices as the flat table that evaluation takes, with a target policy's probabilities beside them.

Of a request the first decision counts. Everything that is left out, or is not there, is counted and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agents.errors import InvalidRecord
from agents.policy import Policy
from replay.bandit import Bools, Floats, Ints
from replay.bills import Bill, Bills
from replay.choice_features import Features
from replay.logged import Batch, Logged, asked, places
from replay.logged_facts import whole
from replay.outcomes import Decider, Mix
from replay.rated_file import RatedFile
from replay.repeats import FirstOf, firsts
from replay.rewards import Ids, Rewards, ids_of, rewards

Units = Literal["subject", "tenant", "request"]
_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("action", "decision", "tenant", "class", "data_class", "policy_hash"), pa.string()),
    **dict.fromkeys(("unknown", "requested", "answered", "fallback"), pa.bool_()),
    **dict.fromkeys(("used", "observed", "time"), pa.int64()),
    **dict.fromkeys(("cost", "prompt", "completion", "latency"), pa.float64()),
    "request_id": pa.binary(16),
    "subject": pa.binary(),
}
_MEASURES = {
    "cost_usd": "cost",
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "latency_ms": "latency",
}
MORE = ("core.candidates", "core.propensities", "core.signals_used", "core.policy_hash", "meta.decided_at")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make of a log: the target `policy`, which ratings are rewards, and what is dependent.

    `metric` and `source` choose ratings, "" any; one that arrives later than `horizon_ms` after its request
    is late and counts as missing. `failed` is the reward of a request that was not answered, if that is to
    be one. `unit` says whose requests may depend on each other.
    """

    policy: Policy
    metric: str = ""
    source: str = ""
    horizon_ms: int | None = None
    failed: float | None = None
    unit: Units = "subject"


@dataclass(slots=True)
class Counts:
    """What was found in the log.

    `decisions` are what the table has; the others say what was left out (`repeats`, `never_decided`,
    `immature`: younger than the horizon when the log ends) or is amiss with some of them: `unknown` need
    signals that the log does not hold, `shredded` have lost their request or all of their signals,
    `unanswered` have no completion, `fallbacks` were answered by another model than the chosen one.
    """

    decisions: int = 0
    repeats: int = 0
    never_decided: int = 0
    immature: int = 0
    unknown: int = 0
    shredded: int = 0
    unanswered: int = 0
    fallbacks: int = 0
    rated: int = 0
    late: int = 0
    missing: int = 0
    repeated_ratings: int = 0
    unusable_ratings: int = 0
    unmatched_ratings: int = 0
    observation_unknown: int = 0

    @property
    def unknown_share(self) -> float:
        """The share of decisions that need a signal which the log does not hold."""
        return self.unknown / self.decisions if self.decisions else 0.0


@dataclass(frozen=True)
class Choices:
    """The table, what was counted, the rewards' metric and sources, and what it is clustered by."""

    table: pa.Table
    counts: Counts
    metric: str
    sources: tuple[str, ...]
    clustered_by: str
    lacking: Counter[str]
    logging_policies: tuple[str, ...]
    dropped: Mapping[str, Mapping[str, Any]]
    outside: RatedFile | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what is told of the log."""
        return {
            **asdict(self.counts),
            "unknown_share": self.counts.unknown_share,
            "unknown_signals": dict(sorted(self.lacking.items())),
            "reward": self.metric,
            "reward_sources": list(self.sources),
            "clustered_by": self.clustered_by,
            "logging_policies": list(self.logging_policies),
            "dropped": {name: dict(gone) for name, gone in self.dropped.items()},
            "ratings_file": None if self.outside is None else self.outside.as_json(),
        }


def choices(logged: Logged, wanted: Wanted, outside: RatedFile | None = None) -> Choices:
    """Return the choices of *logged* under *wanted*; raises `InvalidRecord` for ambiguous feedback.

    Ratings *outside* the log count beside those in it. It also raises where a failure is to be a reward and
    answers were dropped by age: what was dropped looks like one.
    """
    dropped = logged.dropped()
    if wanted.failed is not None and "completions" in dropped:
        raise InvalidRecord(
            f"{dropped['completions']['rows']:,} rows of completions were dropped by retention, and their "
            "requests look as if nobody had answered: leave out --failed-reward, or take a log that is whole"
        )
    tables = chain(() if outside is None else (outside.table,), logged.feedback())
    rated = rewards(tables, wanted.metric, wanted.source)
    gathered = _Gathered(Decider(wanted.policy))
    counts = Counts(repeated_ratings=rated.repeated, unusable_ratings=rated.unusable)
    for partition in logged.partitions():
        known = _Known(Bills(logged.completions(partition)).all(), _Askers.of(logged, partition))
        first = FirstOf()
        for batch in logged.batches(partition, MORE):
            gathered.add(batch, known, first, counts)
        counts.never_decided += len(first.given_up)
    return replace(_table(gathered, rated, wanted, counts, dropped), outside=outside)


@dataclass(frozen=True, slots=True)
class _Askers:
    """The requests of a partition by their offset."""

    offset: Ints
    accepted: Ints
    kind: list[tuple[str, str]]
    subject: list[bytes | None]

    @staticmethod
    def of(logged: Logged, partition: int) -> _Askers:
        found = [table for table in logged.requests(partition) if len(table)]
        if not found:
            return _Askers(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), [], [])
        table = pa.concat_tables(found)
        kinds = zip(table["source"].to_pylist(), table["data_class"].to_pylist(), strict=True)
        return _Askers(
            table["offset"].to_numpy(),
            table["accepted_at"].to_numpy(),
            list(kinds),
            table["subject"].to_pylist(),
        )

    def rows_of(self, offsets: Ints) -> tuple[Ints, Bools]:
        if not len(self.offset):
            return np.zeros(len(offsets), dtype=np.int64), np.zeros(len(offsets), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.offset, offsets), len(self.offset) - 1)
        return at.astype(np.int64), self.offset[at] == offsets


@dataclass(frozen=True, slots=True)
class _Known:
    bill: Bill
    askers: _Askers


@dataclass(slots=True)
class _Gathered:
    """Columns of the rows so far; probabilities as (row, action, probability)."""

    decider: Decider
    rows: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    columns: dict[str, list[pa.Array]] = field(default_factory=dict)
    logged: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    target: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    features: Features = field(default_factory=Features)

    def add(self, batch: Batch, known: _Known, first: FirstOf, counts: Counts) -> None:
        """Add the rows of *batch* that count."""
        counted = firsts(batch, first)
        counts.repeats += counted.repeats
        texts = counted.texts
        batch, codes = counted.only(batch)
        if not len(codes):
            return
        self._choices(batch, codes, texts)
        decided = self.decider.decide(asked(batch))
        self._add_mixes(decided.mixes, self.decider.mixes)
        self._put("unknown", decided.unknown)
        self._put("observed", pc.list_value_length(batch.signals).cast(pa.int64()))
        self._put("tenant", [batch.tenants[number] for number in batch.tenant.tolist()])
        self._work(batch, known, [texts[code][3] for code in codes.tolist()])
        self.features.add(batch.signals, self.rows)
        self.rows += len(codes)

    def _put(self, name: str, values: Sequence[Any] | np.ndarray | pa.Array) -> None:
        self.columns.setdefault(name, []).append(pa.array(values, _COLUMNS[name]))

    @property
    def table(self) -> pa.Table:
        """Return the columns so far."""
        arrays = {n: pa.chunked_array(self.columns.get(n, []), kind) for n, kind in _COLUMNS.items()}
        return pa.table(arrays)

    def _number(self, action: str) -> int:
        return self.actions.setdefault(action, len(self.actions))

    def _choices(self, batch: Batch, codes: Ints, texts: list[tuple[Any, ...]]) -> None:
        """Add what was chosen, and of what: where no model was, its failure with certainty."""
        named = [chosen or f"({failure or outcome})" for outcome, failure, _, chosen in texts]
        core = whole(batch.decisions["core"])
        candidates, odds = core.field("candidates"), core.field("propensities")
        sizes = np.diff(candidates.offsets.to_numpy())
        rows = np.repeat(np.arange(len(codes)), sizes) + self.rows
        flat = [self._number(name) for name in candidates.flatten().to_pylist()]
        self.logged.append((rows, np.array(flat, dtype=np.int64), odds.flatten().to_numpy()))
        sole = np.flatnonzero(sizes == 0)
        numbers = np.array([self._number(named[code]) for code in codes[sole].tolist()], dtype=np.int64)
        self.logged.append((sole + self.rows, numbers, np.ones(len(sole))))
        self._put("action", [named[code] for code in codes.tolist()])
        self._put("decision", [texts[code][2] for code in codes.tolist()])
        self._put("policy_hash", core.field("policy_hash").cast(pa.string()))
        self._put("used", np.diff(core.field("signals_used").offsets.to_numpy()))

    def _add_mixes(self, codes: Ints, mixes: Sequence[Mix]) -> None:
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code) + self.rows
            for action, probability in mixes[code]:
                number = np.full(len(rows), self._number(action), dtype=np.int64)
                self.target.append((rows, number, np.full(len(rows), probability)))

    def _work(self, batch: Batch, known: _Known, chosen: list[str]) -> None:
        """Add when each row was asked for and by whom, and what its calls cost and took."""
        offsets = places(batch.decisions)
        asker, there = known.askers.rows_of(offsets)
        time = whole(batch.decisions["meta"]).field("decided_at").to_numpy(zero_copy_only=False).copy()
        if there.any():
            time[there] = known.askers.accepted[asker[there]]
        kinds = [known.askers.kind[a] if t else ("", "") for a, t in zip(asker.tolist(), there, strict=True)]
        subjects = [
            known.askers.subject[a] if t else None for a, t in zip(asker.tolist(), there, strict=True)
        ]
        self._put("request_id", whole(batch.decisions["request_id"]))
        self._put("time", time)
        self._put("class", [kind[0] for kind in kinds])
        self._put("data_class", [kind[1] for kind in kinds])
        self._put("subject", subjects)
        self._put("requested", there)
        bill, absent = known.bill, np.full(len(offsets), np.nan)
        at, paid = bill.rows_of(offsets)
        for name in ("cost", "prompt", "completion", "latency"):
            values = getattr(bill, name)
            self._put(name, np.where(paid, values[at], np.nan) if len(values) else absent)
        by = [bill.models[bill.model[a]] if p else "" for a, p in zip(at.tolist(), paid, strict=True)]
        self._put("answered", paid)
        self._put("fallback", [bool(b) and b != c for b, c in zip(by, chosen, strict=True)])


def _table(
    gathered: _Gathered,
    rated: Rewards,
    wanted: Wanted,
    counts: Counts,
    dropped: Mapping[str, Mapping[str, Any]],
) -> Choices:
    seen = gathered.table
    ids, time = ids_of(seen["request_id"]), _numpy(seen, "time")
    counts.unmatched_ratings = int((~np.isin(rated.ids, ids)).sum())
    reward, observation = _rewards(ids, time, rated, wanted, counts)
    if wanted.failed is not None:
        failed = ~_numpy(seen, "answered") & np.isnan(reward)
        reward, observation = np.where(failed, wanted.failed, reward), np.where(failed, 1.0, observation)
    kept = np.argsort(time, kind="stable").astype(np.int64)
    if wanted.horizon_ms is not None:
        ends = max(int(time.max(initial=0)), int(rated.arrived.max(initial=0)))
        kept = kept[time[kept] + wanted.horizon_ms <= ends]
    counts.immature = len(time) - len(kept)
    seen, reward, observation = seen.take(pa.array(kept)), reward[kept], observation[kept]
    _count(seen, reward, observation, counts)
    clustered_by, cluster = _clusters(seen, wanted.unit)
    logged, target = _dense(gathered.logged, gathered)[kept], _dense(gathered.target, gathered)[kept]
    taken = [gathered.actions[action] for action in seen["action"].to_pylist()]
    data: dict[str, Any] = {
        "request_id": [value.hex() for value in seen["request_id"].to_pylist()],
        "cluster": cluster,
        "action": seen["action"],
        "propensity": logged[np.arange(len(kept)), np.array(taken, dtype=np.int64)],
        "reward": pa.array(reward, pa.float64(), from_pandas=True),
    }
    if not counts.observation_unknown:
        data["observation"] = pa.array(observation, pa.float64(), from_pandas=True)
    for action, number in gathered.actions.items():
        data[f"target:{action}"], data[f"logged:{action}"] = target[:, number], logged[:, number]
    data |= gathered.features.columns(gathered.rows, kept)
    data |= {name: seen[name] for name in ("tenant", "decision", "class", "data_class")}
    for name, made in _MEASURES.items():
        data[name] = pa.array(_numpy(seen, made), pa.float64(), from_pandas=True)
    return Choices(
        pa.table(data),
        counts,
        rated.metric,
        rated.sources,
        clustered_by,
        +gathered.decider.lacking,
        tuple(sorted(set(seen["policy_hash"].to_pylist()))),
        dropped,
    )


def _numpy(table: pa.Table, name: str) -> np.ndarray:
    found: np.ndarray = table[name].to_numpy()
    return found


def _rewards(ids: Ids, time: Ints, rated: Rewards, wanted: Wanted, counts: Counts) -> tuple[Floats, Floats]:
    """Return each row's reward and observation probability, NaN where there is none in time."""
    at, there = rated.of(ids)
    nothing = np.full(len(ids), np.nan)
    if not len(rated.ids):
        return nothing, nothing.copy()
    late = np.zeros(len(ids), dtype=np.bool_)
    if wanted.horizon_ms is not None:
        late = there & (rated.arrived[at] - time > wanted.horizon_ms)
    counts.late = int(late.sum())
    kept = there & ~late
    return np.where(kept, rated.reward[at], np.nan), np.where(kept, rated.observation[at], np.nan)


def _count(seen: pa.Table, reward: Floats, observation: Floats, counts: Counts) -> None:
    shown = ~np.isnan(reward)
    emptied = (_numpy(seen, "used") > 0) & (_numpy(seen, "observed") == 0)
    counts.decisions = len(seen)
    counts.unknown = int(_numpy(seen, "unknown").sum())
    counts.shredded = int((~_numpy(seen, "requested") | emptied).sum())
    counts.unanswered = int((~_numpy(seen, "answered")).sum())
    counts.fallbacks = int(_numpy(seen, "fallback").sum())
    counts.rated = int(shown.sum())
    counts.missing = int((~shown).sum())
    counts.observation_unknown = int((shown & np.isnan(observation)).sum())


def _clusters(seen: pa.Table, unit: Units) -> tuple[str, list[str]]:
    """Return what rows are clustered by, and each row's cluster; none tells whose it is."""
    alone = [f"request {number}" for number in range(len(seen))]
    if unit == "request":
        return "request", alone
    tenants = seen["tenant"].to_pylist()
    if unit == "tenant":
        return "tenant", [f"tenant {name}" for name in tenants]
    subjects = seen["subject"].to_pylist()
    if not any(subjects):
        return "request", alone
    pairs = list(zip(tenants, subjects, strict=True))
    numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    found = [alone[n] if s is None else f"subject {numbers[t, s]}" for n, (t, s) in enumerate(pairs)]
    return "subject", found


def _dense(parts: Sequence[tuple[Ints, Ints, Floats]], gathered: _Gathered) -> Floats:
    """Return probabilities (n, k); what is named twice is added up."""
    out = np.zeros((gathered.rows, len(gathered.actions)))
    for rows, actions, probabilities in parts:
        np.add.at(out, (rows, actions), probabilities)
    return out
