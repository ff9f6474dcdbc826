"""Rules whose winner no number can change, on arrays: where they match, and nothing of how certainly.

Most policies are such: decisions of different priorities whose conditions ask only whether signals match.
Their confidences need be neither read nor added up to know who wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.engine.array_rules import Fails
from agents.engine.block import FIELDS, FLAGS, Block, Bools
from agents.engine.generate import tiers, winners
from agents.engine.slots import Slots
from agents.engine.tree import AND, NOT, Branch, Fallback, Leaf, Node, Ruleset, leaves

_NUMBERED = {"raw", "metric"}


def is_of_matches(ruleset: Ruleset) -> bool:
    """Tell whether the winner under *ruleset* follows from what matches and what is unknown alone."""
    if ruleset.strategy != "priority" or ruleset.partitions or ruleset.scores or _ranked(ruleset):
        return False
    groups = [*winners(ruleset), *(tiers(ruleset) if ruleset.tiered else ())]
    # Within a group the more certain wins.
    return all(len(group) == 1 for group in groups) and not _bounded(ruleset)


def fields_for(ruleset: Ruleset) -> tuple[str, ...]:
    """Return the fields of observations that the winner under *ruleset* depends on."""
    if is_of_matches(ruleset):
        return FLAGS
    asked = _bounded(ruleset) or any(t.source in _NUMBERED for score in ruleset.scores for t in score.terms)
    return FIELDS if asked else tuple(name for name in FIELDS if name != "value")


def _ranked(ruleset: Ruleset) -> bool:
    return 0 < ruleset.top_k < len(set(ruleset.embeddings))


def _bounded(ruleset: Ruleset) -> bool:
    return any(leaf.bounds is not None for rule in ruleset.rules for leaf in leaves(rule.node))


class Matches:
    """The rules of `slots.ruleset`, which `is_of_matches`, over *block*.

    `failed` is the number in *failures* of the leaf that failed a row first, -1 where none did; it is told
    by `winner`.
    """

    def __init__(self, slots: Slots, block: Block, failures: Sequence[str]) -> None:
        self._slots = slots
        self._block = block
        self._numbers = {shown: number for number, shown in enumerate(failures)}
        self._fails = Fails(block.rows)
        self.failed = self._fails.first

    def winner(self) -> NDArray[np.int32]:
        """Return the number of the decision that wins each row, -1 where none does."""
        ruleset = self._slots.ruleset
        # Whatever wins, a rule that is looked at can fail the request: all are, in their order.
        found = [self._decision(rule.node) for rule in ruleset.rules]
        chosen = np.full(self._block.rows, -1, dtype=np.int32)
        tiered = np.zeros(self._block.rows, dtype=np.bool_)
        for rule, matched in zip(ruleset.rules, found, strict=True):
            if rule.tier > 0:
                tiered |= matched
        _choose(chosen, tiers(ruleset), found, tiered)
        _choose(chosen, winners(ruleset), found, ~tiered)
        return chosen

    def _decision(self, node: Node) -> Bools:
        return self._node(node, np.ones(self._block.rows, dtype=np.bool_) if self._numbers else None)

    def _node(self, node: Node, reach: Bools | None) -> Bools:
        if isinstance(node, Fallback):
            return np.ones(self._block.rows, dtype=np.bool_)
        if isinstance(node, Leaf):
            return self._leaf(node, reach)
        if node.operator == NOT:
            return self._not(node, reach)
        matched = np.full(self._block.rows, node.operator == AND, dtype=np.bool_)
        for child in node.children:
            if node.operator == AND:
                # A condition behind one that fails is not looked at.
                matched &= self._node(child, None if reach is None else reach & matched)
            else:
                matched |= self._node(child, reach)
        return matched

    def _not(self, node: Branch, reach: Bools | None) -> Bools:
        if len(node.children) != 1:
            return np.zeros(self._block.rows, dtype=np.bool_)
        return ~self._node(node.children[0], reach)

    def _leaf(self, leaf: Leaf, reach: Bools | None) -> Bools:
        slot = self._slots.index[leaf.key]
        matched, unknown = self._block.matched[slot], self._block.unknown[slot]
        for other in leaf.others:
            matched = matched | self._block.matched[self._slots.index[other]]
        if unknown is None:
            return matched
        if leaf.on_unknown == "fail_request" and reach is not None:
            self._fails.add(self._numbers[leaf.shown], reach & unknown)
        return matched | unknown if leaf.on_unknown == "match" else matched


def _choose(
    chosen: NDArray[np.int32], groups: Iterable[tuple[int, ...]], found: Sequence[Bools], where: Bools
) -> None:
    """Write the first decision of *groups*, of one each, that is *found* into the rows *where*."""
    undecided = where.copy()
    for (number,) in groups if undecided.any() else ():
        np.copyto(chosen, number, where=found[number] & undecided)
        undecided &= ~found[number]
