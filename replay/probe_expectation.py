"""What a probe expects of the decision and the signals of its request, and how they differ from it.

Nothing is said of what needs a classifier; all else that a probe names is judged, so that a name that the
policy does not declare is a fault rather than a check that cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agents.errors import ConfigError
from agents.loading.plugins import ALIASES
from agents.policy_model import Decision
from agents.signals import signal
from schemas.signal import Observation

DERIVED = "projection"
_ROOT = "default"
_BOUNDS = frozenset({"gt", "gte", "lt", "lte"})


@dataclass(frozen=True)
class Seen:
    """What a request came to: its recipe, type -> what matched, a row a signal, and every projection.

    `hanging` are the projections that depend on a classifier; `numbers` those of observed signals by key.
    """

    recipe: str
    signals: Mapping[str, list[str]]
    rows: list[Observation]
    outputs: frozenset[str]
    hanging: frozenset[str]
    numbers: Mapping[str, float]

    @cached_property
    def _statuses(self) -> Mapping[tuple[str, str], str]:
        return {(row.type, row.name): row.status for row in self.rows}

    def declares(self, kind: str, name: str) -> bool:
        """Tell whether the policy has the signal or projection; a name may end in a level or label."""
        if kind == DERIVED:
            return name in self.outputs
        return bool({(kind, name), (kind, name.rpartition(":")[0])} & self._statuses.keys())

    def tells(self, kind: str, name: str) -> bool:
        """Tell whether it is known here if the signal or projection matched."""
        if kind == DERIVED:
            return name not in self.hanging
        found = self._statuses.get((kind, name), self._statuses.get((kind, name.rpartition(":")[0])))
        return found in {None, "ok"}


@dataclass(frozen=True)
class Expectation:
    """What a probe asks for, its group's share included; types are those of leaves."""

    group: Mapping[str, Any]
    signals: Mapping[str, set[str]]
    forbidden: Mapping[str, set[str]]
    values: Mapping[str, Mapping[str, float]]

    def faults(self, decision: Decision | None, seen: Seen) -> Iterator[str]:
        """Iterate over how the outcome differs; of signals that were skipped nothing is said."""
        name = None if decision is None else decision.name
        if "expected_decision" in self.group and name != self.group["expected_decision"]:
            yield f"decision {name}, expected {self.group['expected_decision']}"
        expected = self.group.get("expected_recipe")
        if expected is not None and (seen.recipe or _ROOT) != expected:
            yield f"recipe {seen.recipe or _ROOT!r}, expected {expected!r}"
        yield from self._decision_faults(decision)
        yield from self._missing(seen)
        yield from self._unwanted(seen)
        yield from self._wrong_numbers(seen)

    def _decision_faults(self, decision: Decision | None) -> Iterator[str]:
        algorithm = self.group.get("expected_algorithm")
        if algorithm is not None and (decision is None or decision.algorithm.get("type") != algorithm):
            yield f"algorithm is not {algorithm}"
        plugins = _plugins(() if decision is None else (plugin.type for plugin in decision.plugins))
        wanted = _plugins(self.group.get("expected_plugins") or ())
        if not wanted <= plugins or (self.group.get("plugin_match") == "exact" and plugins != wanted):
            yield f"plugins {sorted(plugins)}, expected {sorted(wanted)}"
        barred = plugins & _plugins(self.group.get("forbidden_plugins") or ())
        if barred:
            yield f"plugins {sorted(barred)} are forbidden"
        alias = self.group.get("expected_alias")
        if alias is not None and (decision is None or alias not in [ref.model for ref in decision.modelRefs]):
            yield f"{alias} is no candidate"

    def _missing(self, seen: Seen) -> Iterator[str]:
        for kind, names in self.signals.items():
            absent = names - set(seen.signals.get(kind, ()))
            unknown = {name for name in absent if not seen.declares(kind, name)}
            if unknown:
                yield f"the policy declares no {kind} {sorted(unknown)}"
            missing = {name for name in absent - unknown if seen.tells(kind, name)}
            if missing:
                yield f"{kind} {sorted(missing)} did not match"

    def _unwanted(self, seen: Seen) -> Iterator[str]:
        exact = self.group.get("signal_match") == "exact"
        for kind, names in self.signals.items():
            extra = {n for n in set(seen.signals.get(kind, ())) - names if exact and seen.tells(kind, n)}
            if extra:
                yield f"{kind} {sorted(extra)} matched too"
        for kind, names in self.forbidden.items():
            barred = {name for name in names & set(seen.signals.get(kind, ())) if seen.tells(kind, name)}
            if barred:
                yield f"{kind} {sorted(barred)} matched, and is forbidden"

    def _wrong_numbers(self, seen: Seen) -> Iterator[str]:
        for key, bounds in self.values.items():
            kind, _, name = key.partition(":")
            if key in seen.numbers:
                if not _within(seen.numbers[key], bounds):
                    yield f"{key} is {seen.numbers[key]}"
            elif not seen.declares(kind, name):
                yield f"the policy declares no {kind} {name!r}"


def expectation_of(group: Mapping[str, Any], variant: Mapping[str, Any]) -> Expectation:
    """Return what *variant* of *group* must come to; raises `ConfigError` for what cannot be judged."""
    signals: dict[str, set[str]] = {}
    forbidden: dict[str, set[str]] = {}
    values: dict[str, Mapping[str, float]] = {}
    try:
        for part in (group, variant):
            _add(signals, part.get("expected_signals"))
            _add(forbidden, part.get("forbidden_signals"))
            values |= _bounds(part.get("expected_signal_values"))
    except ConfigError as error:
        raise ConfigError(f"probe {variant.get('id')!r} of {group.get('id')!r}: {error}") from None
    return Expectation(group, signals, forbidden, values)


def _add(signals: dict[str, set[str]], written: object) -> None:
    """Add *written*, collection or type -> names, to *signals*."""
    if written is None:
        return
    if not isinstance(written, Mapping) or not all(isinstance(n, list | None) for n in written.values()):
        raise ConfigError("expected_signals and forbidden_signals are mappings of a type to a list of names")
    types: dict[Any, str] = {cls.collection: kind for kind, cls in signal}
    types |= {"projections": DERIVED}
    known = {*types.values()}
    for key, names in written.items():
        kind = types.get(key, str(key))
        if kind not in known:
            raise ConfigError(f"expected_signals or forbidden_signals: {key!r} is no type of signal")
        signals.setdefault(kind, set()).update(map(str, names or ()))


def _bounds(written: object) -> dict[str, Mapping[str, float]]:
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise ConfigError("expected_signal_values is a mapping of type:name to bounds")
    for key, bounds in written.items():
        numbers = isinstance(bounds, Mapping) and all(_is_number(number) for number in bounds.values())
        if not numbers or not set(bounds) <= _BOUNDS:
            raise ConfigError(f"expected_signal_values: {key}: numbers for gt, gte, lt or lte are needed")
    return {str(key): bounds for key, bounds in written.items()}


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _plugins(names: Any) -> set[str]:  # noqa: ANN401 - a probe's YAML
    return {ALIASES.get(name, name) for name in names}


def _within(value: float, bounds: Mapping[str, float]) -> bool:
    return (
        value >= bounds.get("gte", value)
        and value <= bounds.get("lte", value)
        and (value > bounds["gt"] if "gt" in bounds else True)
        and (value < bounds["lt"] if "lt" in bounds else True)
    )
