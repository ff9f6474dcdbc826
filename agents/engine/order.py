"""The order in which scores are computed, and what the bands of a mapping leave out or cover twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.engine.tree import Band, Mapping, Score
from agents.errors import ConfigError


def ordered(scores: Sequence[Score], mappings: Sequence[Mapping]) -> tuple[Score, ...]:
    """Return *scores* in declaration order, each after the scores that it reads, directly or by a mapping.

    Raises `ConfigError`, which names the circle, if a score depends on itself.
    """
    by_name = {score.name: score for score in scores}
    sources = {band.key: mapping.source for mapping in mappings for band in mapping.bands}
    found: dict[str, Score] = {}

    def visit(score: Score, path: tuple[str, ...]) -> None:
        if score.name in found:
            return
        if score.name in path:
            circle = " -> ".join((*path[path.index(score.name) :], score.name))
            raise ConfigError(f"projections.scores: {circle} is a circle; remove one of its inputs")
        for term in score.terms:
            needed = term.key if term.source == "score" else sources.get(term.key)
            if needed in by_name:
                visit(by_name[needed], (*path, score.name))
        found[score.name] = score

    for score in scores:
        visit(score, ())
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers from `low` to `high`; an end that is infinite is open."""

    low: float
    high: float
    low_included: bool
    high_included: bool

    def __str__(self) -> str:
        """Return it in the usual notation, such as ``[0.5, 1)``."""
        left, right = "[" if self.low_included else "(", "]" if self.high_included else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


def gaps(bands: Sequence[Band]) -> tuple[Interval, ...]:
    """Return the numbers that no band of *bands* covers, in ascending order."""
    return _where(bands, lambda count: count == 0)


def overlaps(bands: Sequence[Band]) -> tuple[Interval, ...]:
    """Return the numbers that more than one band of *bands* covers, in ascending order."""
    return _where(bands, lambda count: count > 1)


def _where(bands: Sequence[Band], wanted: Callable[[int], bool]) -> tuple[Interval, ...]:
    """Return the intervals on which *wanted* holds of how many bands cover them.

    Between two neighbouring bounds the count is constant, so one probe decides each piece.
    """
    cuts = sorted({bound for band in bands for bound in band.bounds.given})
    pieces: list[Interval] = []
    for low, high in zip((-math.inf, *cuts), (*cuts, math.inf), strict=True):
        pieces.append(Interval(low, high, low_included=False, high_included=False))
        if high != math.inf:
            pieces.append(Interval(high, high, low_included=True, high_included=True))
    chosen = [p for p in pieces if wanted(sum(band.bounds.holds(_inside(p)) for band in bands))]
    return _joined(chosen)


def _inside(piece: Interval) -> float:
    if piece.low == -math.inf:
        return 0.0 if piece.high == math.inf else piece.high - max(1.0, abs(piece.high))
    if piece.high == math.inf:
        return piece.low + max(1.0, abs(piece.low))
    return piece.low + (piece.high - piece.low) / 2


def _joined(pieces: Sequence[Interval]) -> tuple[Interval, ...]:
    joined: list[Interval] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.high == piece.low and last.high_included != piece.low_included:
            joined[-1] = Interval(last.low, piece.high, last.low_included, piece.high_included)
        else:
            joined.append(piece)
    return tuple(joined)
