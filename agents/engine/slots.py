"""Which signals a tree reads, numbered; and where a row of observations holds each of them.

A *slot* is the place of one key in the vectors that the evaluators work on. A *layout* says, for
observations that come with certain keys in a certain order, at which position each slot is found.
Rows of one role and policy share their layout, so it is worked out once and looked up after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from agents.engine.tree import Fallback, Partition, Ruleset, leaves

ABSENT = -1
"""The position of what is not observed: behind the last observation."""
_DERIVED = -2

LEVELLED = "complexity:"
"""What the keys begin with whose last part is a level of one signal."""

Getter = Callable[[Sequence[Any]], Sequence[Any]]


def level_base(key: str) -> str:
    """Return the key of the signal of which *key* is a level."""
    return key.rpartition(":")[0]


def keys_of(ruleset: Ruleset) -> Iterator[str]:
    """Iterate over the keys that *ruleset* reads or publishes, some more than once."""
    for rule in ruleset.rules:
        for leaf in () if isinstance(rule.node, Fallback) else leaves(rule.node):
            yield leaf.key
            yield leaf.number
            yield from leaf.others
            if leaf.key.startswith(LEVELLED):
                yield level_base(leaf.key)
    for partition in ruleset.partitions:
        yield from (partition.key(member) for member in partition.members)
    for composer in ruleset.composers:
        yield from composer.gated
        yield from (leaf.key for leaf in leaves(composer.node))
    if ruleset.top_k:
        yield from ruleset.embeddings
    for score in ruleset.scores:
        yield from (term.key for term in score.terms if term.source != "score")
    for mapping in ruleset.mappings:
        yield from (band.key for band in mapping.bands)


@dataclass(frozen=True)
class Slots:
    """The keys of a ruleset in a fixed order."""

    ruleset: Ruleset

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Every key once, in order of first use."""
        return tuple(dict.fromkeys(keys_of(self.ruleset)))

    @cached_property
    def index(self) -> dict[str, int]:
        """Key -> slot."""
        return {key: slot for slot, key in enumerate(self.keys)}

    @cached_property
    def published(self) -> frozenset[str]:
        """The keys of projections, which are never observed."""
        return frozenset(band.key for mapping in self.ruleset.mappings for band in mapping.bands)

    def layout(self, names: Sequence[tuple[str, str, str]]) -> Layout:
        """Return where observations called *names* (type, name, label) hold each slot.

        An observation with a label is found under ``type:name:label``, and under ``type:name`` where no
        observation without a label is; the last of several under one key counts.
        """
        labelled = {f"{kind}:{name}": at for at, (kind, name, label) in enumerate(names) if label}
        found: dict[str, int] = {}
        for position, (kind, name, label) in enumerate(names):
            found[f"{kind}:{name}:{label}" if label else f"{kind}:{name}"] = position
        found = labelled | found
        positions = tuple(ABSENT if key in self.published else found.get(key, ABSENT) for key in self.keys)
        status = tuple(self._status(key, found) for key in self.keys)
        members = tuple(self._in_order(partition, found) for partition in self.ruleset.partitions)
        return Layout(positions, status, members)

    def _status(self, key: str, found: dict[str, int]) -> int:
        """Return where the status of *key* is: a level of complexity is known if the rule is."""
        if key in self.published or not key:
            return _DERIVED
        base = level_base(key) if key.startswith(LEVELLED) else key
        return found.get(key, found.get(base, ABSENT))

    def _in_order(self, partition: Partition, found: dict[str, int]) -> tuple[int, ...]:
        """Return the slots of the members that are observed, in the order of observation."""
        keys = {partition.key(member) for member in partition.members}
        return tuple(self.index[key] for key in sorted(keys & found.keys(), key=found.__getitem__))


@dataclass(frozen=True)
class Layout:
    """Position of each slot, position of its status, and each partition's observed members in order."""

    positions: tuple[int, ...]
    status: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]

    @cached_property
    def absent(self) -> tuple[bool, ...]:
        """Which slots are not observed at all."""
        return tuple(place == ABSENT for place in self.status)

    @cached_property
    def known(self) -> tuple[bool, ...]:
        """The same where what is not observed counts as not matched."""
        return (False,) * len(self.status)

    @cached_property
    def pick(self) -> Getter:
        """Return what takes each slot's element out of a sequence that ends with the absent one."""
        return _getter(self.positions)

    @cached_property
    def pick_status(self) -> Getter:
        """Return what takes each slot's status; the last but one element is that of derived slots."""
        return _getter(self.status)


def _getter(positions: tuple[int, ...]) -> Getter:
    if len(positions) > 1:
        return itemgetter(*positions)
    # itemgetter of one position returns the element itself.
    return lambda row: tuple(row[position] for position in positions)
