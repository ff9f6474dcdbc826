"""Prove that every logged decision follows from what the log says it was made of.

Each Decision record, repeats included, is made again from its SignalSets and facts under its
logged policy: twice here, the second time with its inputs in the opposite order, and a sample of
every kind of decision in new processes with other hash seeds. Cores are compared as bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agents.errors import NondeterminismError
from replay.cases import Case, Unreadable, cases
from replay.difference import Difference, difference
from replay.exploring import Spent
from replay.fresh import SEEDS, Remade, remade
from replay.remake import DECIDER, CoreEncoder, Raised, Remaker, load_plugins
from replay.view import LogView
from schemas.codec import SchemaEntry
from schemas.decision import Decision

_SAMPLE = 128
_SAMPLE_OF_A_KIND = 4

_AGAIN = "in this process"
_REVERSED = "with its inputs in the opposite order"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Decisions with what they were made of, and the policies and schemas that they were logged under.

    `dropped` tells what is known to have been there and is not, by table: rows, first and last day.
    """

    cases: Iterable[Case | Unreadable]
    policies: Mapping[str, str]
    schemas: Mapping[int, SchemaEntry]
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @staticmethod
    def of(view: LogView) -> Evidence:
        """Return that of a log, which is whole."""
        return Evidence(cases(view), view.policies(), view.schemas())


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a replay; every decision is reproduced, changed or lacks what it was made of."""

    decisions: int
    reproduced: int
    changed: int
    missing_inputs: int
    missing_policies: int
    unreadable: int
    sampled: int
    exploration: Spent
    first_difference: Difference | None
    first_missing: str
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `NondeterminismError`, which names the first difference, if anything changed."""
        if self.first_difference is not None:
            raise NondeterminismError(str(self.first_difference))

    @property
    def complete(self) -> bool:
        """Tell whether there were decisions and the log held all that each was made of."""
        return self.decisions > 0 and not (self.missing_inputs or self.missing_policies or self.unreadable)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        lacking = self.missing_inputs / self.decisions if self.decisions else 0.0
        return asdict(self) | {"unknown_share": lacking}


@dataclass(slots=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    changed: set[tuple[int, int]] = field(default_factory=set)
    first_difference: Difference | None = None
    first_missing: str = ""
    sample: list[Case] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    kinds: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def missing(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.first_missing = self.first_missing or what

    def differs(self, case: Case, now: Decision | Raised, how: str) -> None:
        self.changed.add((case.partition, case.offset))
        if self.first_difference is None:
            self.first_difference = difference(case, now, how)

    def keep(self, case: Case) -> None:
        """Keep *case* for the fresh processes if few of its kind have been."""
        core = case.decision.core
        kind = (core.policy_hash, core.outcome, core.failure, core.decision, core.chosen)
        if len(self.sample) < _SAMPLE and self.kinds[kind] < _SAMPLE_OF_A_KIND:
            self.kinds[kind] += 1
            self.sample.append(case)


def decide_again(
    log: LogView | Evidence,
    *,
    decider: str = DECIDER,
    seeds: Sequence[str] = SEEDS,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Make every decision of *log* again and return what came of it.

    *decider* names the function that decides; *seeds* are the hash seeds of the new processes, none
    to start none; *progress* is told how many decisions were read. Raises `ConfigError` if a logged
    policy cannot be loaded, `InvalidRecord` if its text was altered, `Unavailable` if a new process
    cannot run.
    """
    load_plugins()
    found = log if isinstance(log, Evidence) else Evidence.of(log)
    tally = _Tally()
    remaker = Remaker(found.policies, decider)
    encoder = CoreEncoder(found.schemas)
    for case in found.cases:
        tally.counts["decisions"] += 1
        progress(tally.counts["decisions"])
        if isinstance(case, Unreadable):
            place = f"decisions, partition {case.partition}, offset {case.offset}"
            tally.missing("unreadable", f"{place}: {case.reason}")
        elif case.missing:
            who = case.decision.request_id.hex()
            tally.missing("missing_inputs", f"signals {', '.join(case.missing)} of request {who}")
        elif case.decision.core.policy_hash not in remaker:
            tally.missing("missing_policies", f"the text of policy {case.decision.core.policy_hash}")
        else:
            _check(case, remaker, encoder, tally)
    if tally.sample and seeds:
        _check_sample(tally, encoder, remade(tally.sample, found.policies, decider, seeds))
    return _report(tally, found.dropped)


def _check(case: Case, remaker: Remaker, encoder: CoreEncoder, tally: _Tally) -> None:
    tally.spent.add(case.decision.core)
    logged = encoder.encode(case.schema_id, case.decision)
    for how, sets in ((_AGAIN, case.sets), (_REVERSED, case.sets[::-1])):
        now = remaker.again(case.decision, sets)
        if not _equal(encoder, case.schema_id, logged, now):
            tally.differs(case, now, how)
            return
    tally.keep(case)


def _check_sample(tally: _Tally, encoder: CoreEncoder, outcomes: Iterable[Remade]) -> None:
    for case, seed, now in outcomes:
        logged = encoder.encode(case.schema_id, case.decision)
        if not _equal(encoder, case.schema_id, logged, now):
            tally.differs(case, now, f"in a new process with PYTHONHASHSEED={seed}")


def _equal(encoder: CoreEncoder, schema_id: int, logged: bytes, now: Decision | Raised) -> bool:
    if isinstance(now, Raised):
        return False
    try:
        return encoder.encode(schema_id, now) == logged
    except Exception:  # noqa: BLE001 - a core that the schema does not take is another core
        return False


def _report(tally: _Tally, dropped: Mapping[str, Mapping[str, Any]]) -> Report:
    counts = tally.counts
    changed = len(tally.changed)
    lacking = counts["missing_inputs"] + counts["missing_policies"] + counts["unreadable"]
    return Report(
        decisions=counts["decisions"],
        reproduced=counts["decisions"] - changed - lacking,
        changed=changed,
        missing_inputs=counts["missing_inputs"],
        missing_policies=counts["missing_policies"],
        unreadable=counts["unreadable"],
        sampled=len(tally.sample),
        exploration=tally.spent,
        first_difference=tally.first_difference,
        first_missing=tally.first_missing,
        dropped=dropped,
    )
