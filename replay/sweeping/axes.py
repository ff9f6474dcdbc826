"""Which thresholds are swept, between which bounds, and where a policy has them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product

from agents.errors import ConfigError
from agents.policy import Policy
from agents.policy_model import leaf_key
from agents.signals import SignalConfig

SWEPT = ("embedding", "jailbreak", "reask")
"""Types that match when their logged score reaches `threshold`, whatever else there is."""

STEPS = 25
FEWEST_STEPS, MOST_STEPS = 2, 1000
MOST_POINTS = 10_000
_WRITTEN = re.compile(r"(?P<kind>[a-z_]+):(?P<name>.+)=(?P<low>[^:=]+):(?P<high>[^:=]+?)(:(?P<steps>\d+))?")


@dataclass(frozen=True, slots=True)
class Axis:
    """A signal's threshold at each of `values`, ascending; `current` is the policy's own."""

    kind: str
    name: str
    values: tuple[float, ...]
    current: float

    @property
    def leaf(self) -> str:
        """Return the signal as rules write it."""
        return f"{self.kind}:{self.name}"


def axis_of(written: str, policy: Policy) -> Axis:
    """Return the axis in *written*, ``type:name=low:high[:steps]``; raises `ConfigError`.

    The policy's own threshold is among the values, so that every point can be compared with today.
    """
    found = _WRITTEN.fullmatch(written.strip())
    if found is None:
        raise ConfigError(f"--threshold {written!r}: write type:name=low:high or type:name=low:high:steps")
    low, high = _number(found["low"], written), _number(found["high"], written)
    steps = int(found["steps"] or STEPS)
    if not low < high or not FEWEST_STEPS <= steps <= MOST_STEPS:
        raise ConfigError(f"--threshold {written!r}: low is below high, and steps are 2 to {MOST_STEPS}")
    current = _current(found["kind"], found["name"], policy)
    grid = {round(low + (high - low) * step / (steps - 1), 6) for step in range(steps)}
    return Axis(found["kind"], found["name"], tuple(sorted(grid | {current})), current)


def _number(text: str, written: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"--threshold {written!r}: {text!r} is no number")
    return number


def _current(kind: str, name: str, policy: Policy) -> float:
    if kind not in SWEPT:
        raise ConfigError(
            f"{kind}:{name} has no threshold that a logged score is compared with alone; those of "
            f"{', '.join(SWEPT)} have"
        )
    found = {float(config.threshold) for config in signals_named(policy, kind, name)}  # type: ignore[attr-defined]
    if not found:
        known = sorted({c.name for c in _declared(policy) if leaf_key(c)[0] == kind})
        raise ConfigError(
            f"the policy has no signal {kind}:{name}; of that type: {', '.join(known) or 'none'}"
        )
    if len(found) > 1:
        raise ConfigError(f"{kind}:{name} has several thresholds, one for each recipe; sweep a file of one")
    return found.pop()


def signals_named(policy: Policy, kind: str, name: str) -> list[SignalConfig]:
    """Return the signals of that type and name, one for each recipe that declares it."""
    return [config for config in _declared(policy) if leaf_key(config) == (kind, name)]


def _declared(policy: Policy) -> list[SignalConfig]:
    scopes = (policy.routing, *(recipe.routing for recipe in policy.recipes))
    return [config for routing in scopes for config in routing.declared]


def points_of(axes: list[Axis]) -> list[tuple[int, ...]]:
    """Return every combination of steps, each but one step of one axis away from the one before it.

    Raises `ConfigError` for more than `MOST_POINTS`.
    """
    if math.prod(len(axis.values) for axis in axes) > MOST_POINTS:
        raise ConfigError(f"so many thresholds make more than {MOST_POINTS} points; take fewer steps")
    return [_snake(numbers, axes) for numbers in product(*(range(len(axis.values)) for axis in axes))]


def _snake(numbers: tuple[int, ...], axes: list[Axis]) -> tuple[int, ...]:
    """Return *numbers* with each axis reversed on every other round of those before it."""
    found: list[int] = []
    before = 0
    for number, axis in zip(numbers, axes, strict=True):
        found.append(len(axis.values) - 1 - number if before % 2 else number)
        before = before * len(axis.values) + number
    return tuple(found)
