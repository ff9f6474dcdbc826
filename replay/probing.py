"""Probes: requests with the decision that a policy must come to, as `policy probe` runs them.

A probe is judged on the path of the original's Eval API. What needs a classifier is *open* here unless
a probe's own expectation stands in for it: a decision is then made only where it is the same whatever
the classifier would say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.engine.tracing import SignalUnknown
from agents.errors import ConfigError
from agents.policy import Policy
from agents.policy_model import Decision
from agents.rules import Node
from replay.previewing import Previewer, is_heuristic
from replay.probe_expectation import DERIVED, Seen, expectation_of
from replay.probe_requests import request_of
from schemas.signal import Observation

Mode = Literal["heuristic", "stub"]


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
        variants = group.get("variants")
        if not isinstance(variants, list) or not all(isinstance(each, dict) for each in variants):
            raise ConfigError(f"probes {group.get('id')!r}: variants is a list of mappings")
        if recipe is None:
            why = f"model {group.get('model')!r} is neither an entrypoint nor a model of the policy"
            return [Outcome(str(each.get("id") or ""), None, "", {}, ok=False, why=why) for each in variants]
        return [self._variant(group, variant, recipe) for variant in variants]

    def _recipe(self, group: Mapping[str, Any]) -> str | None:
        """Return the recipe that the group's model asks for (None: no such model), else the expected one."""
        model = group.get("model")
        if isinstance(model, str):
            return self.policy.recipe_for(model)
        expected = group.get("expected_recipe")
        named = self.policy.recipe_named(expected) if isinstance(expected, str) else None
        return self.policy.recipe_named("") if named is None else named

    def _variant(self, group: Mapping[str, Any], variant: Mapping[str, Any], recipe: str) -> Outcome:
        name = str(variant.get("id") or "")
        if recipe not in self._previewers:
            self._previewers[recipe] = Previewer(self.policy, recipe, every=True)
        previewer = self._previewers[recipe]
        observed = previewer.observe(request_of(variant, self.fixtures, name))
        # The Eval API evaluates no identity: nobody has a role.
        observed = [row._replace(matched=False) if row.type == "authz" else row for row in observed]
        expected = expectation_of(group, variant)
        rows = [_stubbed(row, expected.signals) for row in observed] if self.mode == "stub" else observed
        try:
            preview = previewer.decide(rows)
        except SignalUnknown as unknown:
            return Outcome(name, None, recipe, _matched(rows), None, f"{unknown.leaf} needs a classifier")
        signals = _matched(rows) | ({DERIVED: list(preview.projections)} if preview.projections else {})
        open_ = open_leaf(previewer, rows, preview.decision) if self.mode == "heuristic" else None
        decided = preview.decision or None
        if open_ is not None:
            return Outcome(name, None, recipe, signals, None, f"{open_} needs a classifier")
        seen = Seen(recipe, signals, rows, *self._derived(previewer, observed), _numbers_of(observed))
        faults = list(expected.faults(self._decision(previewer, decided), seen))
        return Outcome(name, decided, recipe, signals, not faults, "; ".join(faults))

    def _derived(
        self, previewer: Previewer, observed: list[Observation]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Return every projection, and those that hang on a signal which was not observed."""
        mappings = previewer.routing.projections.mappings
        outputs = frozenset(output.name for mapping in mappings for output in mapping.outputs)
        truths = Truths(previewer, observed)
        return outputs, frozenset(name for name in outputs if truths.hangs(name))

    def _decision(self, previewer: Previewer, name: str | None) -> Decision | None:
        return next((d for d in previewer.routing.decisions if d.name == name), None)


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


def _numbers_of(observed: list[Observation]) -> dict[str, float]:
    """Return ``type:name`` or ``type:name:label`` -> the number of every signal that was observed."""
    keyed = ((f"{r.type}:{r.name}:{r.label}" if r.label else f"{r.type}:{r.name}", r) for r in observed)
    return {key: row.value for key, row in keyed if row.status == "ok" and not math.isnan(row.value)}


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
        self._matched |= {(DERIVED, name) for name in decided.projections}

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
        if node.kind in self._open or (node.kind == DERIVED and self.hangs(node.name)):
            return None, node.leaf
        return key in self._matched, node.leaf

    def hangs(self, projection: str) -> bool:
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
                if term.type == DERIVED:
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
