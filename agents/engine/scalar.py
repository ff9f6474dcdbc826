"""The evaluator of one request: compiled once per ruleset, then a few microseconds a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import inf
from typing import cast

from agents.engine.exponential import exp
from agents.engine.generate import source_of
from agents.engine.slots import Layout, Slots
from agents.engine.stages import NAN, Stage, Vector, composer_stage, partition_stage, top_stage
from agents.engine.tracing import Tracer, Verdict
from agents.engine.tree import Ruleset, leaves
from schemas.signal import Observations

OK, ABSENT = "ok", "absent"
_LAYOUTS = 4096

Choose = Callable[
    [Sequence[bool], Sequence[float], Sequence[float], Sequence[bool], list[float], list[int]],
    tuple[int, float],
]


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner: its number among the rules (-1 for none) and its confidence."""

    rule: int
    confidence: float


class Evaluator:
    """What *ruleset* decides for one vector of signals."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self.slots = Slots(ruleset)
        self._choose = _compiled(self.slots)
        self._stages = _stages(self.slots)
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self._failing = tuple(
            sorted(
                self.slots.index[leaf.key]
                for rule in ruleset.rules
                for leaf in leaves(rule.node)
                if leaf.on_unknown == "fail_request"
            )
        )

    @cached_property
    def _tracers(self) -> tuple[Tracer, ...]:
        fuzzy = self.ruleset.threshold if self.ruleset.strategy == "fuzzy" else None
        return tuple(Tracer(rule.node, self.slots, fuzzy) for rule in self.ruleset.rules)

    def vector(self, observed: Sequence[Observations], *, absent: str = ABSENT) -> Vector:
        """Return the vector of *observed*, in whose order the types' signals were evaluated.

        A signal that failed is unknown; one that is not observed is too, unless *absent* is `OK`: then
        it did not match.
        """
        if len(observed) == 1:
            (only,) = observed
            key: tuple[object, ...] = (only.type, only.name, only.label)
            matched, confidence, value, status = only.matched, only.confidence, only.value, only.status
        else:
            key = tuple(names for o in observed for names in (o.type, o.name, o.label))
            matched = tuple(chain.from_iterable([o.matched for o in observed]))
            confidence = tuple(chain.from_iterable([o.confidence for o in observed]))
            value = tuple(chain.from_iterable([o.value for o in observed]))
            status = tuple(chain.from_iterable([o.status for o in observed]))
        layout = self._layouts.get(key) or self._layout(key, observed)
        flags = layout.pick((*matched, False))
        numbers, values = layout.pick((*confidence, NAN)), layout.pick((*value, NAN))
        if status.count(OK) == len(status):
            unknown: Sequence[bool] = layout.known if absent == OK else layout.absent
            return Vector(list(flags), list(numbers), list(values), unknown, layout.members)
        unknown = [state != OK for state in layout.pick_status((*status, OK, absent))]
        return Vector(
            [flag and not lost for flag, lost in zip(flags, unknown, strict=True)],
            [NAN if lost else number for number, lost in zip(numbers, unknown, strict=True)],
            [NAN if lost else number for number, lost in zip(values, unknown, strict=True)],
            unknown,
            layout.members,
        )

    def _layout(self, key: tuple[object, ...], observed: Sequence[Observations]) -> Layout:
        names = [row for o in observed for row in zip(o.type, o.name, o.label, strict=True)]
        if len(self._layouts) >= _LAYOUTS:
            self._layouts.clear()
        layout = self._layouts[key] = self.slots.layout(names)
        return layout

    def choose(self, vector: Vector) -> Choice:
        """Return the winner, and leave *vector* as the rules saw it: with every derived stage applied.

        Raises `SignalUnknown` if a rule that is looked at says fail_request and its signal is unknown.
        """
        for stage in self._stages:
            stage(vector)
        vector.scores, vector.outputs = [], []
        winner, confidence = self._choose(
            vector.matched,
            vector.confidence,
            vector.value,
            vector.unknown,
            vector.scores,
            vector.outputs,
        )
        if self._failing and any(vector.unknown[slot] for slot in self._failing):
            for tracer in self._tracers:
                tracer(vector)
        return Choice(winner, confidence)

    def explain(self, vector: Vector, rule: int) -> Verdict:
        """Return how decision number *rule* came about; *vector* is as `choose` left it."""
        return self._tracers[rule](vector)

    def scores(self, vector: Vector) -> Mapping[str, float]:
        """Return the scores that `choose` computed for *vector*, in computing order."""
        names = (score.name for score in self.ruleset.scores)
        return dict(zip(names, vector.scores or (), strict=True))

    def outputs(self, vector: Vector) -> Mapping[str, float]:
        """Return the projections that *vector* published and their confidences, in order of publication."""
        keys = self.slots.keys
        return {keys[s].partition(":")[2]: vector.confidence[s] for s in vector.outputs or ()}


def _stages(slots: Slots) -> tuple[Stage, ...]:
    ruleset = slots.ruleset
    stages = [partition_stage(i, partition, slots) for i, partition in enumerate(ruleset.partitions)]
    stages += [composer_stage(composer, slots) for composer in ruleset.composers]
    if ruleset.top_k and ruleset.embeddings:
        stages.append(top_stage(ruleset.embeddings, ruleset.top_k, slots))
    return tuple(stages)


def _compiled(slots: Slots) -> Choose:
    scope: dict[str, object] = {"exp": exp, "inf": inf}
    # Numbers of slots and of the policy only: see `generate`.
    exec(compile(source_of(slots), "<policy>", "exec"), scope)  # noqa: S102
    return cast("Choose", scope["choose"])
