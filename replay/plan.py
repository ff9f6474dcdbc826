"""How much exploring, traffic and money a verdict on another policy takes, before anything is logged for it.

Logging policy m, target policy p, weight w = p/m of the model that was taken. The doubly robust paired
difference (Dudik, Langford and Li 2011) has per row the variance

    V = v E[chi2] + D^2 (1/d - 1),    chi2 = sum_a p(a)^2 / m(a) - 1 = E[(w - 1)^2]

where v is the reward's variance about its model, D the difference that is seen and d the share of traffic
that changes; the second term is the spread of an effect that is alike on all of it. The logging policy
explores, so it has a part of the effect already: of a difference to the policy that does not explore, the
share f = TV(p, m) / TV(p, q) is seen on the traffic that changes (TV: total variation distance; q: the
policy without exploring). A two-sided test of level a with power b needs n = (z_{1-a/2} + z_b)^2 V / D^2
rows (Lehr 1992 rounds the square to 8; `tests/replay/test_plan.py` simulates that the power is had).
The refusals of `replay.diagnostics` need theirs as well. With two models and a candidate explored with
probability e, chi2 is about d/e: the planning rule SE = sqrt(d K/e v/n) of uniform exploring, K = 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL, POWER = 0.95, 0.8
LEAST_ESS, LEAST_CARRYING, MOST_UNSUPPORTED = 200.0, 40.0, 0.05
"""As in `replay.diagnostics`, which takes scipy to import; a test holds them equal."""
PAIR_SPREAD = 0.6
"""Standard deviation of a judged pair scored 1 (win), 0 (tie) or -1 (loss)."""
_SAME = 1e-9
"""A share of the effect that is the rounding of odds which are equal."""
EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
Odds = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests that one decision sends by odds `now` and another policy would send by `then`.

    `share` is of all traffic; `explored` are the models that exploring would try there, "" odds none.
    """

    decision: str
    share: float
    now: Odds
    then: Odds
    explored: tuple[str, ...]

    @property
    def changed(self) -> float:
        """The share of these requests that goes elsewhere: the total variation distance."""
        return sum(max(0.0, p - self.now.get(name, 0.0)) for name, p in self.then.items())

    def moved(self, epsilon: float) -> float:
        """Return the total variation distance of the target to the odds with exploring."""
        logging = self.logging(epsilon)
        return sum(max(0.0, p - logging.get(name, 0.0)) for name, p in self.then.items())

    def logging(self, epsilon: float) -> dict[str, float]:
        """Return the odds with exploring: (1 - e) now + e / K on each of those explored."""
        if not self.explored:
            return dict(self.now)
        mixed = {name: (1.0 - epsilon) * p for name, p in self.now.items()}
        for name in self.explored:
            mixed[name] = mixed.get(name, 0.0) + epsilon / len(self.explored)
        return mixed

    def moments(self, epsilon: float) -> tuple[float, float]:
        """Return E[(w-1)^2] and E[(w-1)^4] over the supported models, the target renormalised to them."""
        logging = {name: m for name, m in self.logging(epsilon).items() if m > 0.0}
        mass = sum(p for name, p in self.then.items() if name in logging)
        if mass <= 0.0:
            return 0.0, 0.0
        off = [(m, self.then.get(name, 0.0) / mass / m - 1.0) for name, m in logging.items()]
        return sum(m * w**2 for m, w in off), sum(m * w**4 for m, w in off)

    def unsupported(self, epsilon: float) -> float:
        """Return the target's probability of models that would never be logged."""
        logging = self.logging(epsilon)
        return sum(p for name, p in self.then.items() if logging.get(name, 0.0) <= 0.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be told apart: a difference of `detect` of rewards with this variance about their model.

    `observed` is the share of requests with a reward, `design` the factor by which sessions widen (1: none).
    """

    detect: float
    variance: float = 0.19
    observed: float = 1.0
    design: float = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What is to be detected, and what the user knows: requests a day (0: the log's pace), days, prices."""

    wanted: Wanted
    per_day: float = 0.0
    within_days: float = 14.0
    pair_usd: float = 0.01
    changed: float = 0.0


@dataclass(frozen=True, slots=True)
class Option:
    """One way to explore, and the rows it takes; `explored` of them try a model, for `usd` more."""

    epsilon: float
    rows: int
    explored: int
    half_width: float
    usd: float | None = None


def factor(level: float = LEVEL, power: float = POWER) -> float:
    """Return (z_{1-a/2} + z_b)^2: 7.85 for 95 % and 80 %."""
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2.0) + normal.inv_cdf(power)) ** 2


def changed_share(traffic: Sequence[Traffic]) -> float:
    """Return the share of all traffic that would go to another model."""
    return sum(each.share * each.changed for each in traffic)


def unsupported_share(traffic: Sequence[Traffic]) -> float:
    """Return the share of the target's choices that no exploring of a decision's own candidates logs."""
    return sum(each.share * each.unsupported(0.5) for each in traffic)


def seen_share(traffic: Sequence[Traffic], epsilon: float) -> float:
    """Return the share of the effect that a log with exploring still lacks, on the traffic that changes."""
    changing = [each for each in traffic if each.changed > 0.0]
    before = sum(each.share * each.changed for each in changing)
    return sum(each.share * each.moved(epsilon) for each in changing) / before if before > 0.0 else 1.0


def option(traffic: Sequence[Traffic], epsilon: float, wanted: Wanted) -> Option | None:
    """Return what exploring with *epsilon* takes; None where weighting cannot tell whatever is logged.

    So too where exploring so is the target itself: the log has no difference to it then.
    """
    changed = changed_share(traffic) - unsupported_share(traffic)
    if changed <= 0.0 or unsupported_share(traffic) > MOST_UNSUPPORTED:
        return None
    if seen_share(traffic, epsilon) <= _SAME:
        return None
    moments = [(each.share, *each.moments(epsilon)) for each in traffic]
    second = sum(share * m2 for share, m2, _ in moments)
    fourth = sum(share * m4 for share, _, m4 in moments)
    noise = wanted.design * wanted.variance * second / wanted.observed
    seen = wanted.detect * seen_share(traffic, epsilon)
    spread = noise + seen**2 * (1.0 / changed - 1.0)
    rows = factor() * spread / seen**2
    rows = max(rows, max(LEAST_ESS * (1.0 + second), LEAST_CARRYING * fourth / second**2) / wanted.observed)
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2.0) * math.sqrt(spread / rows)
    tried = sum(each.share for each in traffic if each.explored) * epsilon * rows
    return Option(epsilon, math.ceil(rows), math.ceil(tried), half)


def pairs(changed: float, detect: float, level: float = LEVEL) -> int:
    """Return the pairs of answers to changed requests that must be judged side by side.

    With scores of 1, 0 and -1 of standard deviation `PAIR_SPREAD`, n = (z_{1-a/2} + z_b)^2 (d sd / D)^2.
    """
    return max(math.ceil(factor(level) * (changed * PAIR_SPREAD / detect) ** 2), 1)
