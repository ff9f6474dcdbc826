"""The value of a target policy from logged choices: every estimator side by side, and one verdict.

The paired difference to the logging policy is what the verdict is on; the default method is doubly robust
with cross-fitting and a cluster-robust t interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from replay.bandit import SUPPORTED, BanditLog, Bools, Floats
from replay.diagnostics import LEAST_DRIFT, MOST_ERRORS, Diagnostics, diagnose
from replay.estimators import Model, estimator
from replay.intervals import METHODS, Clustered, Interval
from replay.reward_model import Kind, cross_fitted
from replay.slices import CONTROL, Cut, Slice, sliced
from replay.verdict import Verdict, verdict

DEFAULT = "dr"
_ROUNDING = 1e-9
ALL_ROWS = "value over all rows"
OBSERVED_ROWS = "value over rows with observed feedback (observation probability unknown)"


@dataclass(frozen=True, slots=True)
class Method:
    """How to evaluate: the interval's name and level, the reward model, its folds and their seed.

    `detect` is the smallest difference that matters, in units of the reward.
    """

    interval: str = "clustered_t"
    level: float = 0.95
    model: Kind = "ridge"
    folds: int = 5
    seed: int = 0
    detect: float = 0.01


@dataclass(frozen=True)
class Evaluation:
    """Values, differences to the logging policy, diagnostics, and the verdict on the default method's."""

    estimand: str
    diagnostics: Diagnostics
    values: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    verdict: Verdict
    logging_value: Interval
    slices: tuple[Slice, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return self.verdict.sentence(self.differences[DEFAULT], "the mean reward")

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as `replay evaluate --json` prints it; numbers that do not exist are None."""
        found = self.diagnostics
        return {
            "n": found.n,
            "ess": _number(found.ess),
            "max_weight": _number(found.max_weight),
            "unsupported_share": found.unsupported_share,
            "missing_share": found.missing_share,
            "estimators": {name: _interval(i) for name, i in self.values.items()},
            "difference": {name: _interval(i) for name, i in self.differences.items()},
            "verdict": self.verdict.word,
            "needs": asdict(self.verdict.needs),
            "refusals": list(self.verdict.refusals),
            "sentence": self.sentence,
            "estimand": self.estimand,
            "method": DEFAULT,
            "logging_value": _interval(self.logging_value),
            "clusters": found.clusters,
            "clusters_observed": found.clusters_observed,
            "ess_observed": _number(found.ess_observed),
            "carrying_rows": _number(found.carrying),
            "mean_weight": _number(found.mean_weight),
            "changed_share": found.changed_share,
            "slices": [each.as_json() for each in self.slices],
            "slices_control": CONTROL,
        }


@dataclass(frozen=True)
class Prepared:
    """What is estimated from: the rows that can tell, which of the log's they are (n), and a model.

    Nothing is fitted before the model is asked for, so that a log may be refused without.
    """

    log: BanditLog
    kept: Bools
    fit: Callable[[BanditLog], Model]
    estimand: str
    diagnostics: Diagnostics

    @cached_property
    def model(self) -> Model:
        """The model of rewards."""
        return self.fit(self.log)

    @cached_property
    def terms(self) -> Floats:
        """The default estimator's terms of the difference to the logging policy (n)."""
        return estimator[DEFAULT]().terms(self.log, self.model).difference

    def difference(self, method: Method) -> Interval:
        """Return the interval that the verdict is on."""
        return _of(self.terms, self.log, method, self.diagnostics.independent)


def prepare(
    log: BanditLog, method: Method, *, model: Model | None = None, observation_known: bool = True
) -> Prepared | None:
    """Return what *log* is estimated from; *model* replaces the cross-fitted one. None if no row can tell.

    Without known observation probabilities only rows with a reward are looked at, and the estimand says so.
    """
    partly = not observation_known and not bool(log.observed.all())
    kept = log.observed.copy() if partly else np.ones(log.n, dtype=np.bool_)
    mass = log.unsupported
    if mass is not None:
        kept &= 1.0 - mass > SUPPORTED
    usable = log.rows(kept).supported()
    if usable.n == 0 or not usable.observed.any():
        return None

    def fit(rows: BanditLog) -> Model:
        if model is not None:
            return Model(model.predicted[kept])
        return cross_fitted(rows, method.model, folds=method.folds, seed=method.seed)

    return Prepared(usable, kept, fit, OBSERVED_ROWS if partly else ALL_ROWS, diagnose(log))


def evaluate(  # noqa: PLR0913 - what is known beside the log
    log: BanditLog,
    method: Method,
    *,
    model: Model | None = None,
    observation_known: bool = True,
    refusals: Sequence[str] = (),
    slices: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Evaluation:
    """Return the evaluation of *log*, as `prepare` takes it; *refusals* are more reasons for no verdict.

    *slices* are labels of the rows (n each) by column; each slice gets a verdict, and they hold together.
    """
    prepared = prepare(log, method, model=model, observation_known=observation_known)
    if prepared is None:
        return _nothing(log, method, refusals)
    found, usable = prepared.diagnostics, prepared.log
    values, differences = _intervals(usable, prepared.model, method, found.independent)
    refusals = [*refusals, *amiss(log, differences[DEFAULT], partly=prepared.estimand == OBSERVED_ROWS)]
    return Evaluation(
        estimand=prepared.estimand,
        diagnostics=found,
        values=values,
        differences=differences,
        verdict=verdict(differences[DEFAULT], found, method.detect, level=method.level, refusals=refusals),
        logging_value=_of(
            prepared.model.of_taken(usable) + _residual(usable, prepared.model),
            usable,
            method,
            float(found.clusters_observed),
        ),
        slices=_slices(log, prepared, slices, method.level, (*found.drifted, *refusals)),
    )


def amiss(log: BanditLog, difference: Interval, *, partly: bool) -> Iterator[str]:
    """Yield what refuses a verdict besides the diagnostics: mere rounding, and wrong probabilities."""
    if max(abs(difference.low), abs(difference.high)) <= rounding(log):
        yield "the policies differ by no more than rounding"
    shown = Clustered.of(log.inverse_observation, log.cluster)
    off = abs(shown.mean - 1.0)
    if not partly and off > LEAST_DRIFT and off > MOST_ERRORS * shown.error:
        yield (
            f"1/observation averages {shown.mean:.3f} over all rows where it should average 1: "
            "the probabilities do not account for the missing rewards"
        )


def rounding(log: BanditLog) -> float:
    """Return what differences of mean rewards are not told from 0 below."""
    return _ROUNDING * float(np.abs(log.filled).max(initial=0.0))


def _slices(
    log: BanditLog,
    prepared: Prepared,
    labels: Mapping[str, Sequence[str]],
    level: float,
    refusals: tuple[str, ...],
) -> tuple[Slice, ...]:
    """Return the slices; *refusals* are what is wrong with the log as a whole, hence with any part of it."""
    if not labels:
        return ()
    cut = Cut(log, prepared.kept, prepared.terms, prepared.log.cluster, rounding(log), refusals)
    return sliced(cut, labels, level)


def _nothing(log: BanditLog, method: Method, refusals: Sequence[str]) -> Evaluation:
    """Return the evaluation of a log in which no row has both a reward and a supported choice."""
    none = Interval(math.nan, math.nan, math.nan)
    found = diagnose(log)
    reason = "no row has both a reward and a choice that the logging policy could have made"
    return Evaluation(
        estimand=ALL_ROWS,
        diagnostics=found,
        values=dict.fromkeys([name for name, _ in estimator], none),
        differences=dict.fromkeys([name for name, _ in estimator], none),
        verdict=verdict(none, found, method.detect, level=method.level, refusals=(reason, *refusals)),
        logging_value=none,
    )


def _residual(log: BanditLog, model: Model) -> Floats:
    return log.inverse_observation * (log.filled - model.of_taken(log))


def _intervals(
    log: BanditLog, model: Model, method: Method, carrying: float
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    values: dict[str, Interval] = {}
    differences: dict[str, Interval] = {}
    for name, config in estimator:
        try:
            terms = config().terms(log, model)
        except ZeroDivisionError:
            values[name] = differences[name] = Interval(math.nan, math.nan, math.nan)
            continue
        values[name] = _of(terms.value, log, method, carrying)
        differences[name] = _of(terms.difference, log, method, carrying)
    return values, differences


def _of(terms: Floats, log: BanditLog, method: Method, carrying: float) -> Interval:
    return METHODS[method.interval](Clustered.of(terms, log.cluster, carrying), method.level)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(interval: Interval) -> dict[str, float | None]:
    return {key: _number(value) for key, value in asdict(interval).items()}
