"""Conditions on arrays: of every decision where it matches and with what confidence, a block at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.engine.array_stages import within
from agents.engine.block import Block, Bools, Floats
from agents.engine.slots import Slots
from agents.engine.tree import AND, NOT, Bounds, Branch, Fallback, Leaf, Node, Ruleset, leaves

Result = tuple[Bools, Floats]
"""Where a node matches, and its confidence there; elsewhere the number means nothing."""


class Fails:
    """Which leaf failed each row first, -1 where none did."""

    def __init__(self, rows: int) -> None:
        self.first: NDArray[np.int32] = np.full(rows, -1, dtype=np.int32)

    def add(self, number: int, where: Bools) -> None:
        """Let leaf *number* fail the rows *where* that have not failed yet."""
        np.copyto(self.first, number, where=where & (self.first < 0))


def failures_of(ruleset: Ruleset) -> tuple[str, ...]:
    """Return the leaves of *ruleset* that can fail a request, as written."""
    every = [leaf for rule in ruleset.rules for leaf in leaves(rule.node)]
    return tuple(dict.fromkeys(leaf.shown for leaf in every if leaf.on_unknown == "fail_request"))


class Rules:
    """The rules of a ruleset over *block*; each decision is worked out once."""

    def __init__(self, slots: Slots, block: Block | None = None) -> None:
        self._slots = slots
        self._ruleset = slots.ruleset
        self._block = block if block is not None else Block(0, [], [], [], [], [])
        self._done: dict[int, Result] = {}
        self._certain: dict[int, Floats] = {}
        self.failures = failures_of(self._ruleset)
        self._numbers = {shown: number for number, shown in enumerate(self.failures)}
        self._fails: Fails | None = None

    def decision(self, number: int, fails: Fails | None = None) -> Result:
        """Return where decision *number* matches and how certainly; *fails* is told what fails a row."""
        if number not in self._done:
            self._fails = fails
            self._done[number] = self._root(self._ruleset.rules[number].node)
        return self._done[number]

    def _root(self, node: Node) -> Result:
        rows = self._block.rows
        if isinstance(node, Fallback):
            return np.ones(rows, dtype=np.bool_), np.zeros(rows)
        reach = np.ones(rows, dtype=np.bool_) if self._fails is not None else None
        if self._ruleset.strategy != "fuzzy":
            return self._node(node, reach)
        degree = self._degree(node, reach)
        return degree >= self._ruleset.threshold, degree

    def _unknown(self, slot: int) -> Bools | None:
        return self._block.unknown[slot]

    def _leaf(self, leaf: Leaf, reach: Bools | None) -> Result:
        block, slot = self._block, self._slots.index[leaf.key]
        unknown = self._unknown(slot)
        if leaf.on_unknown == "fail_request" and self._fails and unknown is not None and reach is not None:
            self._fails.add(self._numbers[leaf.shown], reach & unknown)
        if leaf.bounds is not None:
            return self._measured(leaf, leaf.bounds, unknown)
        matched = block.matched[slot]
        for other in leaf.others:
            matched = matched | block.matched[self._slots.index[other]]
        certain = self._recorded(slot)
        if leaf.on_unknown == "match" and unknown is not None:
            unseen = 1.0 if self._ruleset.strategy == "fuzzy" else 0.0
            certain = np.where(matched, certain, unseen)
            matched = matched | unknown
        return matched, certain

    def _measured(self, leaf: Leaf, bounds: Bounds, unknown: Bools | None) -> Result:
        slot = self._slots.index[leaf.number]
        value = self._block.value[slot]
        number = np.where(np.isnan(value), self._block.confidence[slot], value)
        matched = within(bounds, number)
        if unknown is not None and (leaf.on_error_match or leaf.on_unknown == "match"):
            matched = matched | (np.isnan(number) & unknown)
        return matched, np.ones(self._block.rows)

    def _recorded(self, slot: int) -> Floats:
        """Return the confidences of *slot*, 1 where none was recorded."""
        if slot not in self._certain:
            confidence = self._block.confidence[slot]
            self._certain[slot] = np.where(np.isnan(confidence), 1.0, confidence)
        return self._certain[slot]

    def _node(self, node: Node, reach: Bools | None) -> Result:
        if isinstance(node, Leaf):
            return self._leaf(node, reach)
        children = node.children if isinstance(node, Branch) else ()
        operator = node.operator if isinstance(node, Branch) else AND
        if operator == NOT:
            return self._not(children, reach)
        return self._and(children, reach) if operator == AND else self._or(children, reach)

    def _not(self, children: tuple[Node, ...], reach: Bools | None) -> Result:
        rows = self._block.rows
        if len(children) != 1:
            return np.zeros(rows, dtype=np.bool_), np.zeros(rows)
        return ~self._node(children[0], reach)[0], np.ones(rows)

    def _and(self, children: tuple[Node, ...], reach: Bools | None) -> Result:
        matched, total = np.ones(self._block.rows, dtype=np.bool_), np.zeros(self._block.rows)
        for child in children:
            # A condition behind one that fails is not looked at.
            seen = None if reach is None else reach & matched
            found, confidence = self._node(child, seen)
            matched &= found
            total += confidence
        if children:
            total /= float(len(children))
        return matched, total

    def _or(self, children: tuple[Node, ...], reach: Bools | None) -> Result:
        matched, best = np.zeros(self._block.rows, dtype=np.bool_), np.zeros(self._block.rows)
        for child in children:
            found, confidence = self._node(child, reach)
            better = found & (~matched | (confidence > best))
            np.copyto(best, confidence, where=better)
            matched |= found
        return matched, best

    def _degree(self, node: Node, reach: Bools | None) -> Floats:
        """Return the degree of truth of *node* in Zadeh's logic, between 0 and 1."""
        if isinstance(node, Leaf):
            matched, certain = self._leaf(node, reach)
            degree = np.where(matched, certain, 0.0)
            return np.where(degree < 0.0, 0.0, np.where(degree > 1.0, 1.0, degree))
        children = node.children if isinstance(node, Branch) else ()
        operator = node.operator if isinstance(node, Branch) else AND
        if operator == NOT and len(children) != 1:
            return np.zeros(self._block.rows)
        degrees = [self._degree(child, reach) for child in children]
        if operator == NOT:
            return 1.0 - degrees[0]
        found = np.full(self._block.rows, 1.0 if operator == AND else 0.0)
        for degree in degrees:
            better = degree < found if operator == AND else degree > found
            np.copyto(found, degree, where=better)
        return found
