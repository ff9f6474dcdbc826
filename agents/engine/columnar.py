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

from agents.engine.array_rules import Fails, Rules
from agents.engine.array_stages import apply
from agents.engine.block import Bools, Floats, block_of, flat_of
from agents.engine.generate import tiers, winners
from agents.engine.slots import Slots
from agents.engine.tree import Ruleset

BLOCK = 16_384
"""Rows a block: a dozen slots of that many floats stay within the second-level cache."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided, a row each: the winner's number (-1 for none) and its confidence.

    `failed` is the number in `failures` of the leaf whose rule failed the request, -1 where none did.
    """

    winner: NDArray[np.int32]
    confidence: Floats
    failed: NDArray[np.int32]
    failures: tuple[str, ...]


class Columnar:
    """What *ruleset* decides for columns of nested signals."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self.slots = Slots(ruleset)

    def decide(self, column: pa.Array | pa.ChunkedArray, *, absent_is_unknown: bool = True) -> Decided:
        """Return the decisions over *column*; see `agents.engine.block` for its type.

        A signal that is not observed is unknown or, if *absent_is_unknown* is false, did not match.
        Raises `InvalidRecord` if the column is of another type.
        """
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        parts = [
            self._block(chunk, start, absent_is_unknown=absent_is_unknown)
            for chunk in chunks
            for start in range(0, len(chunk), BLOCK)
        ]
        rules = Rules(self.slots)
        if not parts:
            empty = np.empty(0, dtype=np.int32)
            return Decided(empty, np.empty(0), empty, rules.failures)
        winner, confidence, failed = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Decided(winner, confidence, failed, rules.failures)

    def _block(
        self, chunk: pa.Array, start: int, *, absent_is_unknown: bool
    ) -> tuple[NDArray[np.int32], Floats, NDArray[np.int32]]:
        flat = flat_of(chunk, start, min(start + BLOCK, len(chunk)))
        block = block_of(flat, self.slots, absent_is_unknown=absent_is_unknown)
        apply(self.slots, block)
        rules = Rules(self.slots, block)
        fails = Fails(block.rows) if rules.failures else None
        if fails is not None:
            # Whatever wins, a rule that is looked at can fail the request: all are, in their order.
            for rule in range(len(self.ruleset.rules)):
                rules.decision(rule, fails)
        winner, confidence = _winners(self.ruleset, rules, block.rows)
        failed = np.full(block.rows, -1, dtype=np.int32) if fails is None else fails.first
        return winner, confidence, failed


def _winners(ruleset: Ruleset, rules: Rules, rows: int) -> tuple[NDArray[np.int32], Floats]:
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
