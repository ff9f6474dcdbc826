"""The evaluator of many rows: what the scalar one decides, bit for bit, an array at a time.

Every sum adds in the same order and every `exp` is the shared one, so that confidences and hence
winners are equal to the scalar's on every input. Rows are taken in blocks that fit a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.engine.array_matches import Matches, fields_for, is_of_matches
from agents.engine.array_rules import Fails, Rules, failures_of
from agents.engine.array_stages import apply
from agents.engine.block import FIELDS, Block, Bools, Floats, block_of, flat_of
from agents.engine.generate import tiers, winners
from agents.engine.slots import Slots
from agents.engine.tree import Ruleset

BLOCK = 16_384
"""Rows a block: a dozen slots of that many floats stay within the second-level cache."""

Numbers = NDArray[np.int32]
_NONE = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), np.empty(0)
"""The parts of no row."""


@dataclass(frozen=True, slots=True)
class Won:
    """Who won, a row each: the decision's number, -1 for none.

    `failed` is the number in `failures` of the leaf whose rule failed the request, -1 where none did.
    """

    winner: Numbers
    failed: Numbers
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decided(Won):
    """Who won, and with what confidence."""

    confidence: Floats


class Columnar:
    """What *ruleset* decides for columns of nested signals."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self.slots = Slots(ruleset)
        self.failures = failures_of(ruleset)
        self.fields = fields_for(ruleset)
        """The fields of an observation that `winners` has to know."""
        self._of_matches = is_of_matches(ruleset)

    def decide(self, column: pa.Array | pa.ChunkedArray, *, absent_is_unknown: bool = True) -> Decided:
        """Return the decisions over *column*; see `agents.engine.block` for its type.

        A signal that is not observed is unknown or, if *absent_is_unknown* is false, did not match.
        Raises `InvalidRecord` if the column is of another type.
        """
        blocks = self._blocks(column, FIELDS, absent_is_unknown=absent_is_unknown)
        parts = [_NONE, *(self._decided(block) for block in blocks)]
        winner, failed, confidence = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Decided(winner, failed, self.failures, confidence)

    def winners(self, column: pa.Array | pa.ChunkedArray, *, absent_is_unknown: bool = True) -> Won:
        """Return who wins over *column*, of which only `fields` are looked at: as `decide`, in less time."""
        blocks = self._blocks(column, self.fields, absent_is_unknown=absent_is_unknown)
        parts = [_NONE[:2], *(self._won(block) for block in blocks)]
        winner, failed = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Won(winner, failed, self.failures)

    def _blocks(
        self, column: pa.Array | pa.ChunkedArray, fields: Sequence[str], *, absent_is_unknown: bool
    ) -> Iterator[Block]:
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            for start in range(0, len(chunk), BLOCK):
                flat = flat_of(chunk, start, min(start + BLOCK, len(chunk)), fields)
                block = block_of(flat, self.slots, absent_is_unknown=absent_is_unknown)
                apply(self.slots, block)
                yield block

    def _won(self, block: Block) -> tuple[Numbers, Numbers]:
        if not self._of_matches:
            return self._decided(block)[:2]
        matches = Matches(self.slots, block, self.failures)
        return matches.winner(), matches.failed

    def _decided(self, block: Block) -> tuple[Numbers, Numbers, Floats]:
        rules = Rules(self.slots, block)
        fails = Fails(block.rows)
        # Whatever wins, a rule that is looked at can fail the request: all are, in their order.
        for rule in range(len(self.ruleset.rules) if self.failures else 0):
            rules.decision(rule, fails)
        winner, confidence = _winners(self.ruleset, rules, block.rows)
        return winner, fails.first, confidence


def _winners(ruleset: Ruleset, rules: Rules, rows: int) -> tuple[Numbers, Floats]:
    winner = np.full(rows, -1, dtype=np.int32)
    confidence = np.zeros(rows)
    undecided = np.ones(rows, dtype=np.bool_)
    if ruleset.tiered:
        tiered = np.zeros(rows, dtype=np.bool_)
        for number, rule in enumerate(ruleset.rules):
            if rule.tier > 0:
                tiered |= rules.decision(number)[0]
        chosen = _Chosen(winner, confidence, tiered.copy())
        chosen.take(tiers(ruleset), rules)
        undecided = ~tiered
    _Chosen(winner, confidence, undecided).take(winners(ruleset), rules)
    return winner, confidence


@dataclass(slots=True)
class _Chosen:
    """The winners so far; `undecided` marks the rows that the next group may decide."""

    winner: NDArray[np.int32]
    confidence: Floats
    undecided: Bools

    def take(self, groups: Iterator[tuple[int, ...]], rules: Rules) -> None:
        for group in groups:
            if not self.undecided.any():
                return
            self._group(group, rules)

    def _group(self, group: Sequence[int], rules: Rules) -> None:
        decided = np.zeros(len(self.winner), dtype=np.bool_)
        for number in group:
            matched, confidence = rules.decision(number)
            better = matched & self.undecided
            if decided.any():
                better &= ~decided | (confidence > self.confidence)
            np.copyto(self.winner, number, where=better)
            np.copyto(self.confidence, confidence, where=better)
            decided |= better
        self.undecided &= ~decided
