"""Probes: requests with the decision that a policy must come to, as `policy probe` runs them.

A probe is judged on the path of the original's Eval API. What needs a classifier is *open* here unless
a probe's own expectation stands in for it: a decision is then made only where it is the same whatever
the classifier would say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.engine.tracing import SignalUnknown
from agents.errors import ConfigError
from agents.policy import Policy
from agents.policy_model import Decision
from agents.rules import Node
from agents.signals import signal
from replay.previewing import Previewer, is_heuristic
from replay.probe_requests import request_of
from schemas.signal import Observation

Mode = Literal["heuristic", "stub"]
_DERIVED = "projection"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one probe; `ok` is None where it was skipped."""

    id: str
    decision: str | None
    recipe: str
    signals: Mapping[str, list[str]]
    ok: bool | None
    why: str = ""


@dataclass
class Prober:
    """Runs the probes of one file against *policy*."""

    policy: Policy
    fixtures: Mapping[str, Any]
    mode: Mode
    _previewers: dict[str, Previewer] = field(default_factory=dict)

    def group(self, group: Mapping[str, Any]) -> list[Outcome]:
        """Return the outcome of each variant of *group*; raises `ConfigError` if it is no group."""
        recipe = self._recipe(group)
        return [self._variant(group, variant, recipe) for variant in group.get("variants") or ()]

    def _recipe(self, group: Mapping[str, Any]) -> str:
        """Return the recipe that the group's model asks for, else the one that it expects."""
        model = group.get("model")
        if isinstance(model, str):
            return self.policy.recipe_for(model) or ""
        expected = group.get("expected_recipe")
        known = {recipe for recipe, _ in self.policy.scopes}
        return expected if isinstance(expected, str) and expected in known else ""

    def _variant(self, group: Mapping[str, Any], variant: Mapping[str, Any], recipe: str) -> Outcome:
        name = str(variant.get("id") or "")
        if recipe not in self._previewers:
            self._previewers[recipe] = Previewer(self.policy, recipe, every=True)
        previewer = self._previewers[recipe]
        rows = previewer.observe(request_of(variant, self.fixtures, name))
        # The Eval API evaluates no identity: nobody has a role.
        rows = [row._replace(matched=False) if row.type == "authz" else row for row in rows]
        expected = expectation_of(group, variant)
        if self.mode == "stub":
            rows = [_stubbed(row, expected.signals) for row in rows]
        try:
            preview = previewer.decide(rows)
        except SignalUnknown as unknown:
            return Outcome(name, None, recipe, _matched(rows), None, f"{unknown.leaf} needs a classifier")
        signals = _matched(rows) | ({_DERIVED: list(preview.projections)} if preview.projections else {})
        open_ = open_leaf(previewer, rows, preview.decision) if self.mode == "heuristic" else None
        decided = preview.decision or None
        if open_ is not None:
            return Outcome(name, None, recipe, signals, None, f"{open_} needs a classifier")
        faults = list(expected.faults(self._decision(previewer, decided), recipe, signals, rows))
        return Outcome(name, decided, recipe, signals, not faults, "; ".join(faults))

    def _decision(self, previewer: Previewer, name: str | None) -> Decision | None:
        return next((d for d in previewer.routing.decisions if d.name == name), None)


@dataclass(frozen=True)
class Expectation:
    """What a probe asks for, its group's share included; types are those of leaves."""

    group: Mapping[str, Any]
    signals: Mapping[str, set[str]]
    forbidden: Mapping[str, set[str]]
    values: Mapping[str, Mapping[str, float]]

    def faults(
        self,
        decision: Decision | None,
        recipe: str,
        signals: Mapping[str, list[str]],
        rows: list[Observation],
    ) -> Iterator[str]:
        """Iterate over how the outcome differs; of signals that were skipped nothing is said."""
        name = None if decision is None else decision.name
        if name != self.group.get("expected_decision"):
            yield f"decision {name}, expected {self.group.get('expected_decision')}"
        expected = self.group.get("expected_recipe")
        if expected is not None and recipe != expected:
            yield f"recipe {recipe!r}, expected {expected!r}"
        yield from self._decision_faults(decision)
        yield from self._signal_faults(signals, rows)

    def _decision_faults(self, decision: Decision | None) -> Iterator[str]:
        algorithm = self.group.get("expected_algorithm")
        if algorithm is not None and (decision is None or decision.algorithm.get("type") != algorithm):
            yield f"algorithm is not {algorithm}"
        plugins = set() if decision is None else {plugin.type for plugin in decision.plugins}
        wanted = set(self.group.get("expected_plugins") or ())
        if not wanted <= plugins or (self.group.get("plugin_match") == "exact" and plugins != wanted):
            yield f"plugins {sorted(plugins)}, expected {sorted(wanted)}"
        barred = plugins & set(self.group.get("forbidden_plugins") or ())
        if barred:
            yield f"plugins {sorted(barred)} are forbidden"
        alias = self.group.get("expected_alias")
        if alias is not None and (decision is None or alias not in [ref.model for ref in decision.modelRefs]):
            yield f"{alias} is no candidate"

    def _signal_faults(self, signals: Mapping[str, list[str]], rows: list[Observation]) -> Iterator[str]:
        seen = {row.type for row in rows if row.status == "ok"}
        for kind, names in self.signals.items():
            missing = names - set(signals.get(kind, ()))
            # A projection of a classifier's signal is not known here.
            if missing and kind in seen:
                yield f"{kind} {sorted(missing)} did not match"
            extra = set(signals.get(kind, ())) - names
            if extra and kind in seen and self.group.get("signal_match") == "exact":
                yield f"{kind} {sorted(extra)} matched too"
        for kind, names in self.forbidden.items():
            barred = names & set(signals.get(kind, ()))
            if barred and kind in seen:
                yield f"{kind} {sorted(barred)} matched, and is forbidden"
        known = {f"{r.type}:{r.name}": r.value for r in rows if not r.label and r.status == "ok"}
        for key, bounds in self.values.items():
            value = known.get(key)
            if value is not None and value == value and not _within(value, bounds):  # noqa: PLR0124
                yield f"{key} is {value}"


def expectation_of(group: Mapping[str, Any], variant: Mapping[str, Any]) -> Expectation:
    """Return what *variant* of *group* must come to."""
    signals: dict[str, set[str]] = {}
    forbidden: dict[str, set[str]] = {}
    for part in (group, variant):
        _add(signals, part.get("expected_signals"))
        _add(forbidden, part.get("forbidden_signals"))
    values = {**(group.get("expected_signal_values") or {}), **(variant.get("expected_signal_values") or {})}
    return Expectation(group, signals, forbidden, values)


def _add(signals: dict[str, set[str]], written: object) -> None:
    """Add *written*, collection or type -> names, to *signals*."""
    if written is None:
        return
    if not isinstance(written, Mapping):
        raise ConfigError("expected_signals and forbidden_signals are mappings of a type to names")
    types: dict[Any, str] = {cls.collection: kind for kind, cls in signal}
    types |= {"projections": _DERIVED}
    for key, names in written.items():
        signals.setdefault(types.get(key, str(key)), set()).update(map(str, names or ()))


def _stubbed(row: Observation, expected: Mapping[str, set[str]]) -> Observation:
    """Return *row* as a probe expects it, if it needs a classifier; what it does not name does not match."""
    if row.status != "skipped":
        return row
    names = expected.get(row.type, set())
    labels = [name.partition(":")[2] for name in names if name.partition(":")[0] == row.name]
    label = labels[0] if labels else ""
    number = 1.0 if labels else 0.0
    return row._replace(
        matched=bool(labels), label=label, confidence=number, value=number, status="ok", reason=""
    )


def _within(value: float, bounds: Mapping[str, float]) -> bool:
    return (
        value >= bounds.get("gte", value)
        and value <= bounds.get("lte", value)
        and (value > bounds["gt"] if "gt" in bounds else True)
        and (value < bounds["lt"] if "lt" in bounds else True)
    )


def _matched(rows: list[Observation]) -> dict[str, list[str]]:
    """Return type -> what matched, a level with its rule."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.matched:
            found.setdefault(row.type, []).append(f"{row.name}:{row.label}" if row.label else row.name)
    return found


def open_leaf(
    previewer: Previewer, rows: list[Observation], winner: str, truths: Truths | None = None
) -> str | None:
    """Return a leaf on whose classifier it depends which decision wins, None if it depends on none."""
    truths = truths or Truths(previewer, rows)
    verdicts = [(d, *truths.of(d.rules)) for d in previewer.routing.decisions]
    strategy = previewer.routing.strategy or "priority"
    plain = strategy == "priority" and not any(d.tier for d in previewer.routing.decisions)
    won = next((d for d, _, _ in verdicts if d.name == winner), None)
    for decision, truth, leaf in verdicts:
        if truth is not None:
            continue
        if won is None or decision is won or not plain or decision.priority >= won.priority:
            return leaf
    return None


class Truths:
    """Kleene's logic over rules in which some signals are open."""

    def __init__(self, previewer: Previewer, rows: list[Observation]) -> None:
        self._routing = previewer.routing
        heuristic = {(c.observed_name, type(c)) for c in previewer.configs if is_heuristic(c)}
        self._open = {row.type for row in rows if row.status != "ok"}
        self._kinds = {type(c) for c in previewer.configs}
        self._heuristic = heuristic
        decided = previewer.decide(rows)
        self._matched = {(row.type, row.name) for row in rows if row.matched and row.status == "ok"}
        self._matched |= {(_DERIVED, name) for name in decided.projections}

    def of(self, node: Node) -> tuple[bool | None, str]:
        """Return what *node* is, None if that is open, and a leaf that it hangs on."""
        if node.is_fallback:
            return True, ""
        if node.type:
            return self._leaf(node)
        children = [self.of(child) for child in node.conditions]
        open_ = next((leaf for truth, leaf in children if truth is None), "")
        truths = [truth for truth, _ in children]
        if node.operation == "NOT":
            sole = truths[0] if len(truths) == 1 else True
            return (None, open_) if sole is None else (not sole, "")
        deciding = node.operation == "OR"
        if deciding in truths:
            return deciding, ""
        return (None, open_) if None in truths else (not deciding, "")

    def _leaf(self, node: Node) -> tuple[bool | None, str]:
        key = (node.kind, node.name)
        if node.kind in self._open or (node.kind == _DERIVED and self._hangs(node.name)):
            return None, node.leaf
        return key in self._matched, node.leaf

    def _hangs(self, projection: str) -> bool:
        """Tell whether *projection* is derived from a signal that is open."""
        todo = [
            m.source
            for m in self._routing.projections.mappings
            if any(o.name == projection for o in m.outputs)
        ]
        seen: set[str] = set()
        while todo:
            score = todo.pop()
            if score in seen:
                continue
            seen.add(score)
            for term in self._terms(score):
                if term.type in self._open or term.type == "kb_metric":
                    return True
                if term.type == _DERIVED:
                    todo += [term.name, *self._sources(term.name)]
        return False

    def _terms(self, score: str) -> Iterator[Any]:
        for candidate in self._routing.projections.scores:
            if candidate.name == score:
                yield from candidate.inputs

    def _sources(self, output: str) -> Iterator[str]:
        for mapping in self._routing.projections.mappings:
            if any(band.name == output for band in mapping.outputs):
                yield mapping.source
