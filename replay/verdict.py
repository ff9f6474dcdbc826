"""From an interval to a verdict in words, or to what a verdict would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from replay.diagnostics import FEWEST_CLUSTERS, LEAST_CARRYING, LEAST_ESS, MOST_UNSUPPORTED, Diagnostics
from replay.intervals import Interval
from replay.plan import factor, pairs

Word = Literal["better", "worse", "not_enough_evidence"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What would be enough: further `rows` of this traffic, or `pairs` of answers judged side by side.

    `pairs` is None where no judge can help: cost and latency are not judged.
    """

    rows: int
    pairs: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on the target policy, why it was refused (if it was), and what it would take.

    `rows_help` is false where the refusal is for what more rows of the same kind would have wrong too.
    """

    word: Word
    refusals: tuple[str, ...]
    needs: Needs
    rows_help: bool = True

    def sentence(self, difference: Interval, what: str) -> str:
        """Return the verdict in words, about *what* (such as: the mean reward)."""
        found = f"{what} changes by {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}]"
        if self.word != "not_enough_evidence":
            return f"The target policy is {self.word}: {found}."
        reason = "; ".join(self.refusals) or f"{found}, which could be nothing"
        return f"Not enough evidence: {reason}. {self._remedy()}."

    def _remedy(self) -> str:
        judged = "" if self.needs.pairs is None else f"{self.needs.pairs:,} judged pairs"
        if self.rows_help:
            rows = f"It needs about {self.needs.rows:,} more rows of such traffic"
            return f"{rows}, or {judged}" if judged else rows
        rows = "More rows of such traffic would not change that"
        return f"{rows}, but {judged} would" if judged else rows


def verdict(
    difference: Interval,
    found: Diagnostics,
    detect: float,
    *,
    level: float = 0.95,
    refusals: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on *difference*, the target's mean minus the logging policy's.

    It is refused for what *found* says, and for *refusals*. *detect* is the smallest difference that
    matters, in units of the reward; what is needed is reckoned for it, or for the difference at hand where
    that is larger.
    """
    refusals = (*found.refusals, *refusals)
    needs = Needs(
        _rows(difference, found, detect, level), pairs(found.changed_share, _aim(difference, detect), level)
    )
    if not refusals and difference.low > 0.0:
        return Verdict("better", (), Needs(0, 0))
    if not refusals and difference.high < 0.0:
        return Verdict("worse", (), Needs(0, 0))
    amiss = found.drifted or refusals != found.refusals or (found.unsupported_share or 0.0) > MOST_UNSUPPORTED
    return Verdict("not_enough_evidence", refusals, needs, rows_help=not amiss)


def _rows(difference: Interval, found: Diagnostics, detect: float, level: float) -> int:
    """Return further rows until what is to be detected is, with a power of 80 %, as `replay.plan` plans.

    A half-width is z_{1-a/2} standard errors, which shrink with the root of n, and a difference is found
    with power b if it is z_{1-a/2} + z_b of them. A ratio of sample sizes is also asked of a refused
    effective size or number of clusters; of one that is 0 no ratio can be told, so at least what it lacks
    is asked for.
    """
    aim = _aim(difference, detect)
    error = difference.half / _quantile(level)
    ratio = factor(level) * (error / aim) ** 2 if math.isfinite(error) else 1.0
    at_least = 1
    for have, least in (
        (min(found.ess, found.ess_observed), LEAST_ESS),
        (found.carrying, LEAST_CARRYING),
        (float(found.clusters_observed), FEWEST_CLUSTERS),
    ):
        if have > 0.0:
            ratio = max(ratio, least / have)
        else:
            at_least = max(at_least, math.ceil(least))
    return max(math.ceil(found.n * (ratio - 1.0)), at_least)


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2.0)


def _aim(difference: Interval, detect: float) -> float:
    return max(detect, abs(difference.value)) if math.isfinite(difference.value) else detect
