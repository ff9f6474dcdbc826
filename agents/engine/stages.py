"""The derived stages before the projections, on one vector: partitions, composers, the best embeddings.

In the order of the original (VSR: partitions, then composers, then top_k). Each stage is compiled
into a function that changes the vector's lists in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.engine.exponential import exp
from agents.engine.slots import Slots
from agents.engine.tree import AND, NOT, Branch, Composer, Leaf, Node, Partition

NAN = float("nan")


@dataclass(slots=True)
class Vector:
    """What is known of each slot; NaN is a number that was not recorded.

    `unknown` marks signals that failed, came late or were never observed. `members` are the slots of
    each partition's observed members, in the order of observation. `scores` and `outputs` are filled
    in by the projections.
    """

    matched: list[bool]
    confidence: list[float]
    value: list[float]
    unknown: Sequence[bool]
    members: tuple[tuple[int, ...], ...] = ()
    scores: list[float] | None = None
    outputs: list[int] | None = None


Stage = Callable[[Vector], None]
Holds = Callable[[Sequence[bool]], bool]


def partition_stage(index: int, partition: Partition, slots: Slots) -> Stage:
    """Return the stage that keeps the best member of *partition*, the vector's *index*-th.

    Members that match with a recorded confidence contend, the first observed winning ties. A single
    contender changes nothing; with several, every other member stops matching. With none, the default
    matches without a confidence unless it matches already.
    """
    every = tuple(slots.index[partition.key(member)] for member in partition.members)
    default = slots.index[partition.key(partition.default)] if partition.default in partition.members else -1
    softmax, temperature = partition.softmax, partition.temperature

    def stage(vector: Vector) -> None:
        matched, confidence = vector.matched, vector.confidence
        contend = [s for s in vector.members[index] if matched[s] and confidence[s] == confidence[s]]
        if not contend:
            if default >= 0 and not matched[default]:
                matched[default], confidence[default] = True, NAN
            return
        if len(contend) == 1:
            return
        winner = max(contend, key=confidence.__getitem__)
        best = confidence[winner]
        if softmax:
            total = 0.0
            for slot in contend:
                total += exp((confidence[slot] - best) / temperature)
            best = 1.0 / total
        for slot in every:
            if slot != winner and matched[slot]:
                matched[slot], confidence[slot] = False, NAN
        confidence[winner] = best

    return stage


def composer_stage(composer: Composer, slots: Slots) -> Stage:
    """Return the stage that lets what *composer* gates match only if its condition holds.

    The confidences stay, as in the original, where a predicate can still read them.
    """
    holds = _holds(composer.node, slots)
    gated = tuple(slots.index[key] for key in composer.gated)

    def stage(vector: Vector) -> None:
        if not holds(vector.matched):
            for slot in gated:
                vector.matched[slot] = False

    return stage


def _holds(node: Node, slots: Slots) -> Holds:
    if isinstance(node, Leaf):
        slot = slots.index[node.key]
        return lambda matched: matched[slot]
    children = tuple(_holds(child, slots) for child in node.children) if isinstance(node, Branch) else ()
    operator = node.operator if isinstance(node, Branch) else AND
    if operator == AND:
        return lambda matched: all(child(matched) for child in children)
    if operator == NOT:
        return lambda matched: len(children) == 1 and not children[0](matched)
    return lambda matched: any(child(matched) for child in children)


def top_stage(keys: Sequence[str], top_k: int, slots: Slots) -> Stage:
    """Return the stage that keeps the *top_k* best of the embedding rules *keys*, by name on ties.

    A rule without a recorded confidence ranks with 0.
    """
    ranked = tuple(slots.index[key] for key in sorted(set(keys), key=str.encode))

    def rank(confidence: Sequence[float], slot: int) -> float:
        number = confidence[slot]
        return -number if number == number else 0.0  # noqa: PLR0124 - true for NaN only

    def stage(vector: Vector) -> None:
        matched, confidence = vector.matched, vector.confidence
        found = [slot for slot in ranked if matched[slot]]
        if len(found) > top_k:
            found.sort(key=lambda slot: rank(confidence, slot))
            for slot in found[top_k:]:
                matched[slot], confidence[slot] = False, NAN

    return stage
