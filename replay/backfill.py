"""Signals that a policy needs and the log lacks, computed from the logged requests: those and no others.

A request whose body cannot be read (its key is gone, or nobody kept it) stays as it was logged, and is
counted. What was logged is never computed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from agents.battery import UNREAD
from agents.engine.block import FIELDS
from agents.observe import ELSEWHERE, SEALED, Observer
from agents.policy import Policy, PolicyBook
from agents.policy_model import leaf_key
from agents.ports import Infer
from agents.signals import Classified, SignalConfig, Unhosted
from replay.archive_rows import OBSERVATION
from replay.bills import Part
from replay.logged import Batch, Logged, asked, places
from replay.outcomes import Decider
from replay.repeats import FirstOf, firsts
from replay.what_if import recipe_of
from schemas.identity import Origin
from schemas.request import Request
from schemas.signal import Observation

_CHUNK = 256
_UNKEYED = "none"
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Filled:
    """What came of it, in requests: `lacking` needed something, `observed` got some of it.

    The others: `shredded`, sealed under a key that this process does not hold; `elsewhere`, too large for a
    record, in a claim store; `absent`, not there or kept without its body; `refused`, with a body that
    nothing can be observed of; `unanswered`, of which a classifier was to tell something and did not.
    `signals` counts what was computed, `failed` what could not be.
    """

    lacking: int = 0
    observed: int = 0
    shredded: int = 0
    elsewhere: int = 0
    absent: int = 0
    refused: int = 0
    unanswered: int = 0
    signals: int = 0
    failed: int = 0

    def as_json(self) -> dict[str, int]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Lacking:
    """A row whose body can be read, and the signals that it is to be observed for, by type and name."""

    row: int
    request: Request
    origin: Origin
    signals: Mapping[tuple[str, str], SignalConfig]


@dataclass(slots=True)
class Backfilled:
    """The decisions of *logged*, with the signals that *policy* needs as far as *infer* can tell them."""

    logged: Logged
    policy: Policy
    infer: Infer
    runner: asyncio.Runner
    filled: Filled = field(default_factory=Filled)

    def __post_init__(self) -> None:
        """Prepare what observes."""
        book = PolicyBook([self.policy])
        # No budget runs out here: a clock that stands still.
        self._observers = {role: Observer(role, book, self.infer, lambda: 0) for role in self.policy.roles}

    _observers: dict[str, Observer] = field(init=False, default_factory=dict)

    def partitions(self) -> list[int]:
        """Pass on."""
        return self.logged.partitions()

    def completions(self, partition: int) -> list[Part]:
        """Pass on."""
        return self.logged.completions(partition)

    def bodied(self, partition: int, offsets: Collection[int]) -> Iterator[tuple[int, Request]]:
        """Pass on."""
        return self.logged.bodied(partition, offsets)

    def requests(self, partition: int) -> Iterator[pa.Table]:
        """Pass on."""
        return self.logged.requests(partition)

    def feedback(self) -> Iterator[pa.Table]:
        """Pass on."""
        return self.logged.feedback()

    def policies(self) -> Mapping[str, str]:
        """Pass on."""
        return self.logged.policies()

    def dropped(self) -> Mapping[str, Mapping[str, Any]]:
        """Pass on."""
        return self.logged.dropped()

    def batches(
        self, partition: int, more: Sequence[str] = (), seen: Collection[str] = FIELDS
    ) -> Iterator[Batch]:
        """Yield the decisions of *partition*, the observations that were lacking added to theirs.

        What does not count, such as a repeat, is yielded as it was logged.
        """
        known = FirstOf()
        for batch in self.logged.batches(partition, more, {*seen, *Decider(self.policy).reads}):
            counted = firsts(batch, known).rows
            rows = asked(batch)
            lacking = np.flatnonzero(Decider(self.policy).decide(rows).unknown & counted).tolist()
            if not lacking:
                yield batch
                continue
            self.filled.lacking += len(lacking)
            stands_for = {row: rows.asked[rows.kinds[row]] for row in lacking}
            recipes = {row: recipe_of(of[0], of[1], self.policy) for row, of in stands_for.items()}
            yield replace(batch, signals=self._signals(batch, partition, recipes))

    def _signals(self, batch: Batch, partition: int, recipes: Mapping[int, str]) -> pa.Array:
        offsets = places(batch.decisions)
        wanted = {int(offsets[row]) for row in recipes}
        requests = dict(self.logged.bodied(partition, wanted))
        seen: list[Rows] = batch.signals.to_pylist()
        usable = []
        for row, recipe in recipes.items():
            origin = Origin(partition, int(offsets[row]))
            request = self._usable(requests.get(origin.offset))
            if request is not None:
                stamped = replace(request, policy_hash=self.policy.hash, recipe=recipe)
                usable.append(_Lacking(row, stamped, origin, self._lacking(seen[row], recipe)))
        for start in range(0, len(usable), _CHUNK):
            some = usable[start : start + _CHUNK]
            for each, observed in zip(some, self.runner.run(self._observed(some)), strict=True):
                seen[each.row] = [*seen[each.row], *self._added(each.signals, observed)]
        known = {OBSERVATION.field(i).name: OBSERVATION.field(i).type for i in range(OBSERVATION.num_fields)}
        kinds = [(each.name, known[each.name]) for each in batch.signals.type.value_type]
        return pa.array(seen, pa.list_(pa.struct(kinds)))

    def _lacking(self, logged: Rows, recipe: str) -> dict[tuple[str, str], SignalConfig]:
        """Return what *recipe* demands and *logged* does not have."""
        known = {(each["type"], each["name"]) for each in logged}
        demanded = (config for configs in self.policy.demand(recipe).values() for config in configs)
        return {key: config for config in demanded if (key := leaf_key(config)) not in known}

    def _usable(self, request: Request | None) -> Request | None:
        """Return *request* if its body is at hand; counts it otherwise."""
        body = None if request is None else request.body
        if body is not None and body.sealed is not None and body.sealed.alg == _UNKEYED:
            return request
        if body is not None and body.sealed is not None:
            self.filled.shredded += 1
        elif body is not None and body.claim is not None:
            self.filled.elsewhere += 1
        else:
            self.filled.absent += 1
        return None

    async def _observed(self, rows: Sequence[_Lacking]) -> list[list[tuple[str, Observation]]]:
        """Return what each of *rows* is observed as, by the roles of which it lacks a signal."""
        found: list[list[tuple[str, Observation]]] = [[] for _ in rows]
        for role, observer in self._observers.items():
            whose = [n for n, r in enumerate(rows) if any(c.role == role for c in r.signals.values())]
            made = await observer.observe([(rows[n].request, rows[n].origin) for n in whose])
            for n, signals in zip(whose, made, strict=True):
                if signals is not None:
                    found[n] += [(role, each) for each in signals.observations]
        return found

    def _added(
        self, lacking: Mapping[tuple[str, str], SignalConfig], observed: list[tuple[str, Observation]]
    ) -> Rows:
        """Return what was *lacking* and is *observed* now; what failed is as unknown as before."""
        new = [(role, each) for role, each in observed if (each.type, each.name) in lacking]
        made = [(role, each) for role, each in new if each.status != "failed"]
        self.filled.failed += len(new) - len(made)
        self.filled.signals += len(made)
        if made:
            self.filled.observed += 1
        elif any(_unanswered(lacking[each.type, each.name], each) for _, each in new):
            self.filled.unanswered += 1
        else:
            self.filled.refused += 1
        return [{"role": role, **each._asdict()} for role, each in made]


def _unanswered(config: SignalConfig, failed: Observation) -> bool:
    """Tell whether it is the classifier of *config* that *failed* for want of, and not of a fit body."""
    return isinstance(config, Unhosted) or (
        isinstance(config, Classified) and failed.reason not in {UNREAD, SEALED, ELSEWHERE}
    )
