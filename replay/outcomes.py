"""What a policy decides for many logged requests at once, as `agents.decision.decide` does for one.

The rules run on columns of logged signals; the selector draws with the logged request ids, so that
the chosen model is the one that the request would have had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.decision import TAG
from agents.draw import word_of
from agents.engine.array_matches import fields_for
from agents.engine.block import Flat, flat_of, is_periodic
from agents.engine.columnar import Columnar
from agents.exploration import AMONG, EXPLORE, OPEN, Trial
from agents.policy import Policy
from agents.policy_model import Decision as DecisionRule
from replay.what_if import recipe_of

_FEW = 65_536
_KEY = ("type", "name")
Codes = NDArray[np.int64]
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """Where a request went, or would go."""

    outcome: str
    failure: str
    decision: str
    chosen: str

    @property
    def goes_by(self) -> str:
        """Return the decision's name, or what there was in its place."""
        return self.decision or (f"({self.failure})" if self.failure else f"({self.outcome})")

    @property
    def model(self) -> str:
        """Return the model's name, or why there is none."""
        return self.chosen or f"({self.failure or 'no model'})"


@dataclass(frozen=True, slots=True)
class Asked:
    """Some logged requests: id, requested model and logged recipe, and the signals that were logged.

    `signals` is a list of structs or a struct of lists, as `agents.engine.block` takes it; `kinds`
    numbers the triples in `asked` (requested model, logged recipe, whether exploring could be paid), a
    number a row.
    """

    ids: Words
    kinds: Codes
    asked: Sequence[tuple[str, str, str]]
    signals: pa.Array


Mix = tuple[tuple[str, float], ...]
"""What a policy may do with a request: each model, or why there is none, with its probability."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the draws of some rows depend on: request ids, and which may explore."""

    ids: Words
    may_explore: Flags

    def only(self, rows: Codes) -> _Drawn:
        return _Drawn(self.ids[rows], self.may_explore[rows])


@dataclass(slots=True)
class Decided:
    """A number in `Decider.outcomes` a row, and where a signal that the policy needs was not logged.

    `mixes` is a number in `Decider.mixes` a row: of what the outcome was drawn.
    """

    codes: Codes
    unknown: Flags
    mixes: Codes


def units(salt: str, ids: Words, tag: str = TAG) -> NDArray[np.float64]:
    """Return `agents.draw.unit` of each of *ids* (rows of two words), for the first attempt at *tag*."""
    z = np.zeros(len(ids), dtype=np.uint64)
    for word in (np.uint64(word_of(salt)), ids[:, 0], ids[:, 1], np.uint64(0), np.uint64(word_of(tag))):
        z = _splitmix(z ^ word)
    draws: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws


def _splitmix(x: Words) -> Words:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def picks(propensities: Sequence[float], draws: NDArray[np.float64]) -> Codes:
    """Return `agents.draw.pick` of each of *draws*."""
    reached = np.cumsum(np.asarray(propensities, dtype=np.float64))
    last = max((index for index, p in enumerate(propensities) if p > 0.0), default=0)
    return np.minimum(np.searchsorted(reached, draws, side="right"), last).astype(np.int64)


def tried(trial: Trial, ids: Words, incumbents: Codes, may_explore: Flags) -> Codes:
    """Return the place that `Trial.choose` chooses for each of *ids*, the incumbent's where it must not."""
    explores = may_explore & (units(trial.salt, ids, EXPLORE) < trial.epsilon)
    among = np.array(trial.among, dtype=np.int64)
    which = (units(trial.salt, ids, AMONG) * len(among)).astype(np.int64)
    found: Codes = np.where(explores, among[which], incumbents)
    return found


@dataclass(slots=True)
class _Scope:
    """A recipe's evaluator, and the signals that it demands."""

    columnar: Columnar
    decisions: tuple[DecisionRule, ...]
    demanded: Mapping[tuple[str, str], str]


@dataclass(slots=True)
class Decider:
    """Decides under *policy*; `outcomes` grows with what is met, `lacking` counts rows by signal."""

    policy: Policy
    outcomes: list[Outcome] = field(default_factory=list)
    lacking: Counter[str] = field(default_factory=Counter)
    mixes: list[Mix] = field(default_factory=list)
    _numbers: dict[Outcome, int] = field(default_factory=dict)
    _mix_numbers: dict[Mix, int] = field(default_factory=dict)
    _scopes: dict[str, _Scope] = field(default_factory=dict)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of observations that deciding takes."""
        rulesets = (evaluator.ruleset for evaluator in self.policy.evaluators.values())
        return frozenset(_KEY).union(*map(fields_for, rulesets))

    def decide(self, rows: Asked) -> Decided:
        """Return what the policy decides for *rows*; a signal that is not there is unknown."""
        codes = np.zeros(len(rows.kinds), dtype=np.int64)
        unknown = np.zeros(len(rows.kinds), dtype=np.bool_)
        mixes = np.full(len(rows.kinds), -1, dtype=np.int64)
        recipes = [recipe_of(model, logged, self.policy) for model, logged, _ in rows.asked]
        paid = np.array([said == OPEN for *_, said in rows.asked], dtype=np.bool_)
        drawn = _Drawn(rows.ids, paid[rows.kinds])
        by_recipe: dict[str, list[int]] = {}
        for kind, recipe in enumerate(recipes):
            by_recipe.setdefault(recipe, []).append(kind)
        for recipe, kinds in by_recipe.items():
            whole = len(kinds) == len(recipes)
            chosen = np.arange(len(codes)) if whole else np.flatnonzero(np.isin(rows.kinds, kinds))
            if not len(chosen):
                continue
            if self.policy.routing_of(recipe) is None:
                table = np.array([self._bypassed(model) for model, *_ in rows.asked], dtype=np.int64)
                codes[chosen] = table[rows.kinds[chosen]]
                continue
            signals = rows.signals if whole else rows.signals.take(pa.array(chosen))
            own = drawn if whole else drawn.only(chosen)
            codes[chosen], mixes[chosen] = self._routed(recipe, signals, own)
            unknown[chosen] = self._unknown(recipe, signals)
        return Decided(codes, unknown, self._certain(codes, mixes))

    def _certain(self, codes: Codes, mixes: Codes) -> Codes:
        """Return *mixes*, where there is none (-1) that of an outcome which no draw decides."""
        for code in np.unique(codes[mixes < 0]).tolist():
            mixes[(mixes < 0) & (codes == code)] = self._mixed(((self.outcomes[code].model, 1.0),))
        return mixes

    def _scope(self, recipe: str) -> _Scope:
        if recipe not in self._scopes:
            routing = self.policy.routing_of(recipe)
            if routing is None:
                raise LookupError(recipe)
            columnar = Columnar(self.policy.evaluators[recipe].ruleset)
            self._scopes[recipe] = _Scope(columnar, routing.decisions, routing.demanded_keys)
        return self._scopes[recipe]

    def _routed(self, recipe: str, signals: pa.Array, drawn: _Drawn) -> tuple[Codes, Codes]:
        scope = self._scope(recipe)
        found = scope.columnar.winners(signals)
        codes = np.full(len(drawn.ids), -1, dtype=np.int64)
        mixes = np.full(len(drawn.ids), -1, dtype=np.int64)
        winner = np.where(found.failed >= 0, -2 - found.failed, found.winner)
        lowest = winner.min(initial=0)
        for number in (numbered(winner - lowest)[0] + lowest).tolist():
            rows = np.flatnonzero(winner == number)
            if number <= -2:  # noqa: PLR2004 - -1 is no winner, below are the failures
                code = f"signal_unknown:{found.failures[-2 - number]}"
                codes[rows] = self._number(Outcome("failed", code, "", ""))
            elif number == -1:
                default = self.policy.providers.defaults.default_model
                codes[rows] = self._sole("default", default) if default else self._failed("no_decision")
            else:
                codes[rows], mixes[rows] = self._selected(recipe, scope.decisions[number], drawn.only(rows))
        return codes, mixes

    def _selected(self, recipe: str, rule: DecisionRule, drawn: _Drawn) -> tuple[Codes | int, Codes | int]:
        if rule.selector is None:
            return self._failed(f"algorithm_unsupported:{rule.algorithm.get('type')}"), -1
        candidates = self.policy.candidates(rule)
        if not candidates:
            return self._failed("no_candidate"), -1
        names = [candidate.model for candidate in candidates]
        table = np.array([self._served(rule.name, name, names) for name in names], dtype=np.int64)
        propensities = rule.selector.odds(candidates).propensities
        chosen = picks(propensities, units(rule.selector.salt or f"{recipe}/{rule.name}", drawn.ids))
        trial, models = self.policy.trials.get((recipe, rule.name)), [self.outcomes[n].model for n in table]
        mix = self._mixed(tuple(zip(models, propensities, strict=True)))
        if trial is None:
            return table[chosen], mix
        explored = self._mixed(tuple(zip(models, trial.mixed(propensities), strict=True)))
        mixes = np.where(drawn.may_explore, explored, mix).astype(np.int64)
        return table[tried(trial, drawn.ids, chosen, drawn.may_explore)], mixes

    def _mixed(self, mix: Mix) -> int:
        if mix not in self._mix_numbers:
            self._mix_numbers[mix] = len(self.mixes)
            self.mixes.append(mix)
        return self._mix_numbers[mix]

    def _served(self, decision: str, model: str, names: Sequence[str]) -> int:
        plan = self.policy.plan((model, *(name for name in dict.fromkeys(names) if name != model)))
        if not plan or plan[0].model != model:
            return self._failed(f"model_not_served:{model}")
        return self._number(Outcome("routed", "", decision, model))

    def _bypassed(self, model: str) -> int:
        known = model in self.policy.models
        return self._sole("bypassed", model) if known else self._failed("model_not_found")

    def _sole(self, outcome: str, model: str) -> int:
        if not self.policy.plan((model,)):
            return self._failed(f"model_not_served:{model}")
        return self._number(Outcome(outcome, "", "", model))

    def _failed(self, code: str) -> int:
        return self._number(Outcome("failed", code, "", ""))

    def _number(self, outcome: Outcome) -> int:
        if outcome not in self._numbers:
            self._numbers[outcome] = len(self.outcomes)
            self.outcomes.append(outcome)
        return self._numbers[outcome]

    def _unknown(self, recipe: str, signals: pa.Array) -> Flags:
        demanded = self._scope(recipe).demanded
        unknown = np.zeros(len(signals), dtype=np.bool_)
        if demanded:
            seen = _Seen.of(flat_of(signals, 0, len(signals), _KEY))
            for key, leaf in demanded.items():
                lacking = ~seen.holds(key)
                self.lacking[leaf] += int(lacking.sum())
                unknown |= lacking
        return unknown


@dataclass(frozen=True, slots=True)
class _Seen:
    """What rows hold observations of; `types` and `names` number the texts, an observation each."""

    offsets: NDArray[np.int64]
    types: Codes
    names: Codes
    texts: tuple[Sequence[str], Sequence[str]]
    alike: bool

    @staticmethod
    def of(flat: Flat) -> _Seen:
        """Return what *flat* holds; mostly every row has the same signals in the same order."""
        (types, kinds), (names, called) = (_numbered(flat.fields[name]) for name in _KEY)
        width, alike = flat.width, False
        if flat.rows and width > 0:
            alike = is_periodic(types, width) and is_periodic(names, width)
        return _Seen(flat.offsets, types, names, (kinds, called), alike)

    def holds(self, key: tuple[str, str]) -> Flags:
        """Return which rows hold an observation of *key*, whatever it says."""
        rows = len(self.offsets) - 1
        if not all(wanted in texts for wanted, texts in zip(key, self.texts, strict=True)):
            return np.zeros(rows, dtype=np.bool_)
        one, other = (texts.index(wanted) for wanted, texts in zip(key, self.texts, strict=True))
        if self.alike:
            width = int(self.offsets[1] - self.offsets[0])
            there = bool(((self.types[:width] == one) & (self.names[:width] == other)).any())
            return np.full(rows, there, dtype=np.bool_)
        before = np.concatenate(([0], np.cumsum((self.types == one) & (self.names == other))))
        found: Flags = before[self.offsets[1:]] > before[self.offsets[:-1]]
        return found


def _numbered(texts: pa.Array) -> tuple[Codes, Sequence[str]]:
    """Return a number for each of *texts*, and the texts that the numbers stand for, each once."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def coded(columns: Sequence[pa.Array]) -> tuple[Codes, list[tuple[Any, ...]]]:
    """Return a number a row, and the values in *columns* that each number stands for."""
    combined = np.zeros(len(columns[0]), dtype=np.int64)
    texts = []
    for column in columns:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        combined = combined * max(1, len(values)) + encoded.indices.to_numpy(zero_copy_only=False)
        texts.append(values)
    distinct, codes = numbered(combined)
    found = []
    for code in distinct.tolist():
        row = []
        for values in reversed(texts):
            code, index = divmod(code, max(1, len(values)))  # noqa: PLW2901 - a mixed radix, digit by digit
            row.append(values[index])
        found.append(tuple(reversed(row)))
    return codes, found


def numbered(values: Codes) -> tuple[Codes, Codes]:
    """Return the distinct *values*, sorted, and the place of each value among them."""
    highest = int(values.max(initial=0))
    if highest > _FEW or int(values.min(initial=0)) < 0:
        distinct, codes = np.unique(values, return_inverse=True)
        return distinct, codes.reshape(-1).astype(np.int64)
    there = np.bincount(values, minlength=highest + 1) > 0  # a count, where a sort would take ten times that
    place = np.cumsum(there) - 1
    return np.flatnonzero(there), place[values]
