"""The derived stages on arrays, a block of rows at a time: see `stages` and `generate` for one row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.engine.block import Block, Bools, Floats
from agents.engine.exponential import exps
from agents.engine.slots import Slots
from agents.engine.tree import AND, NOT, Bounds, Branch, Leaf, Mapping, Node, Partition, Term


def apply(slots: Slots, block: Block) -> None:
    """Run every derived stage on *block*, in the order of the scalar evaluator."""
    ruleset = slots.ruleset
    for partition in ruleset.partitions:
        _partition(partition, slots, block)
    for composer in ruleset.composers:
        holds = _holds(composer.node, slots, block)
        for key in composer.gated:
            slot = slots.index[key]
            block.matched[slot] = block.matched[slot] & holds
    if ruleset.top_k and ruleset.embeddings:
        _keep_top(slots, block)
    numbers: dict[str, Floats] = {}
    for score in ruleset.scores:
        total = np.zeros(block.rows)
        for term in score.terms:
            total = total + _term(term, slots, block, numbers)
        numbers[score.name] = total
        block.scores.append(total)
        for mapping in ruleset.mappings_of(score.name):
            _publish(mapping, total, slots, block)


def _partition(partition: Partition, slots: Slots, block: Block) -> None:
    members = list(dict.fromkeys(slots.index[partition.key(member)] for member in partition.members))
    matched = np.stack([block.matched[s] for s in members])
    confidence = np.stack([block.confidence[s] for s in members])
    place = np.stack([np.broadcast_to(np.asarray(block.place[s]), block.rows) for s in members])
    contends = matched & ~np.isnan(confidence)
    # The first observed first, so that ties and the order of summation are the scalar's.
    order = np.argsort(np.where(place < 0, np.iinfo(np.int64).max, place), axis=0, kind="stable")
    in_order = np.take_along_axis(contends, order, axis=0)
    numbers = np.where(in_order, np.take_along_axis(confidence, order, axis=0), -np.inf)
    first = np.argmax(numbers, axis=0)
    best = np.take_along_axis(numbers, first[None], axis=0)[0]
    winner = np.take_along_axis(order, first[None], axis=0)[0]
    several = contends.sum(axis=0) > 1
    share = best
    if partition.softmax:
        total = np.zeros(block.rows)
        for present, number in zip(in_order, numbers, strict=True):
            power = exps(
                (np.where(present, number, 0.0) - np.where(several, best, 0.0)) / partition.temperature
            )
            total = total + np.where(present, power, 0.0)
        share = 1.0 / np.where(several, total, 1.0)
    for row, slot in enumerate(members):
        won = several & (winner == row)
        lost = several & (winner != row) & matched[row]
        block.matched[slot] = matched[row] & ~lost
        block.confidence[slot] = np.where(won, share, np.where(lost, np.nan, confidence[row]))
    if partition.default in partition.members:
        slot = slots.index[partition.key(partition.default)]
        taken = ~contends.any(axis=0) & ~block.matched[slot]
        block.matched[slot] = block.matched[slot] | taken
        block.confidence[slot] = np.where(taken, np.nan, block.confidence[slot])


def _holds(node: Node, slots: Slots, block: Block) -> Bools:
    if isinstance(node, Leaf):
        return block.matched[slots.index[node.key]]
    children = [_holds(c, slots, block) for c in (node.children if isinstance(node, Branch) else ())]
    operator = node.operator if isinstance(node, Branch) else AND
    if operator == NOT:
        return ~children[0] if len(children) == 1 else np.zeros(block.rows, dtype=np.bool_)
    found = np.full(block.rows, operator == AND, dtype=np.bool_)
    for child in children:
        found = found & child if operator == AND else found | child
    return found


def _keep_top(slots: Slots, block: Block) -> None:
    keys = sorted(set(slots.ruleset.embeddings), key=str.encode)
    members = [slots.index[key] for key in keys]
    matched = np.stack([block.matched[s] for s in members])
    confidence = np.stack([block.confidence[s] for s in members])
    rank = np.where(matched, -np.where(np.isnan(confidence), 0.0, confidence), np.inf)
    order = np.argsort(rank, axis=0, kind="stable")
    behind: NDArray[np.intp] = order[slots.ruleset.top_k :]
    lost = np.zeros_like(matched)
    np.put_along_axis(lost, behind, values=True, axis=0)
    lost &= matched
    for row, slot in enumerate(members):
        block.matched[slot] = matched[row] & ~lost[row]
        block.confidence[slot] = np.where(lost[row], np.nan, confidence[row])


def _term(term: Term, slots: Slots, block: Block, scores: dict[str, Floats]) -> Floats | float:
    if term.source == "score":
        return scores.get(term.key, np.zeros(block.rows)) * term.weight
    slot = slots.index[term.key]
    if term.source in {"raw", "metric"}:
        number = block.value[slot]
        return np.where(np.isnan(number), 0.0, number) * term.weight
    miss = term.miss * term.weight
    if term.source == "match":
        return np.where(block.matched[slot], term.match * term.weight, miss)
    recorded = block.confidence[slot]
    # NaN is not greater than 0 either, without a warning.
    certain = np.where(recorded > 0.0, recorded, 1.0) * term.weight
    return np.where(block.matched[slot], certain, miss)


def _publish(mapping: Mapping, score: Floats, slots: Slots, block: Block) -> None:
    done = np.zeros(block.rows, dtype=np.bool_)
    for band in mapping.bands:
        hit = within(band.bounds, score)
        if not mapping.every:
            hit &= ~done
            done |= hit
        slot = slots.index[band.key]
        block.matched[slot] = block.matched[slot] | hit
        if hit.any():
            distance = np.abs(score - band.bounds.given[0]) if band.bounds.given else np.zeros(block.rows)
            for bound in band.bounds.given[1:]:
                distance = np.minimum(distance, np.abs(score - bound))
            certain = 1.0 / (1.0 + exps(-mapping.slope * distance))
            block.confidence[slot] = np.where(hit, certain, block.confidence[slot])


def within(bounds: Bounds, number: Floats) -> Bools:
    """Return where *number* is within *bounds*; NaN is not."""
    found: Bools = ~np.isnan(number)
    if bounds.gt is not None:
        found &= number > bounds.gt
    if bounds.gte is not None:
        found &= number >= bounds.gte
    if bounds.lt is not None:
        found &= number < bounds.lt
    if bounds.lte is not None:
        found &= number <= bounds.lte
    return found
