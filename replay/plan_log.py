"""What a log says for a plan: what traffic would change, what exploring can reach, what it costs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from agents.policy import Policy
from agents.policy_model import Decision
from replay.comparison import Comparison
from replay.comparison_report import mean_tokens
from replay.outcomes import Outcome
from replay.plan import Traffic

_DAY_MS = 86_400_000
_SMALL = 1e-12
_ROUTED = "routed"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Requests of a decision that would go to a model which exploring there can never try, and why."""

    decision: str
    model: str
    share: float
    why: str


@dataclass(frozen=True, slots=True)
class Logs:
    """The traffic of a log under its policy and another, and what is known of its volume and prices.

    By decision, `usd` is what a request that explores costs more on average, and `charged` what of it the
    cap pays: a trial that is cheaper than what it replaces is a saving, which is not credited.
    """

    traffic: tuple[Traffic, ...]
    unreachable: tuple[Unreachable, ...]
    usd: Mapping[str, float]
    charged: Mapping[str, float]
    decisions: int
    days: float

    @property
    def per_day(self) -> float | None:
        """Decisions a day at the log's own pace, None for a log of no length."""
        return self.decisions / self.days if self.days > 0.0 else None

    def extra_usd(self, epsilon: float, rows: int) -> float:
        """Return what exploring with *epsilon* costs more over *rows* requests, net, in USD."""
        return self._over(self.usd, epsilon, rows)

    def charged_usd(self, epsilon: float, rows: int) -> float:
        """Return what of that is charged to the cap, as `agents.exploration.Account` does."""
        return self._over(self.charged, epsilon, rows)

    def _over(self, usd: Mapping[str, float], epsilon: float, rows: int) -> float:
        at = {each.decision: 0.0 for each in self.traffic}
        for each in self.traffic:
            at[each.decision] += each.share if each.explored else 0.0
        return rows * epsilon * sum(share * usd.get(name, 0.0) for name, share in at.items())


def logs_of(found: Comparison, current: Policy, new: Policy) -> Logs:
    """Return what *found*, from the log under *current* to *new*, says for a plan."""
    pairs: Counter[tuple[Outcome, Outcome]] = Counter()
    for (_, was, would), sums in found.cells.items():
        pairs[_kind(was), _kind(would)] += sums.rows
    total = max(sum(pairs.values()), 1)
    traffic = [
        Traffic(was.goes_by, count / total, _odds(current, was), _odds(new, would), ())
        for (was, would), count in sorted(pairs.items())
    ]
    tried = {name: _tried(current, name, traffic) for name in {each.decision for each in traffic}}
    explored = tuple(replace(each, explored=tried[each.decision]) for each in traffic)
    span = (found.last or 0) - (found.first or 0)
    return Logs(
        explored,
        tuple(_unreachable(current, explored)),
        {name: _usd(found, current, name, models) for name, models in tried.items() if models},
        {name: _charged(found, current, name, models) for name, models in tried.items() if models},
        found.decisions,
        span / _DAY_MS,
    )


def _kind(outcome: Outcome) -> Outcome:
    """Return *outcome* without the model that a selector drew: its odds stand for that."""
    return replace(outcome, chosen="") if outcome.outcome == _ROUTED else outcome


def _odds(policy: Policy, outcome: Outcome) -> dict[str, float]:
    """Return the odds of each model with *outcome* under *policy*; a failure is a model of its own."""
    rule = rule_of(policy, outcome.decision)
    if outcome.outcome != _ROUTED or rule is None or rule.selector is None:
        return {outcome.model: 1.0}
    candidates = policy.candidates(rule)
    found: dict[str, float] = {}
    for candidate, p in zip(candidates, rule.selector.odds(candidates).propensities, strict=True):
        found[candidate.model] = found.get(candidate.model, 0.0) + p
    return found


def rule_of(policy: Policy, name: str) -> Decision | None:
    """Return the first decision of this name, the root's before those of recipes."""
    rules = (rule for _, routing in policy.scopes for rule in routing.decisions)
    return next((rule for rule in rules if rule.name == name), None)


def _tried(current: Policy, decision: str, traffic: list[Traffic]) -> tuple[str, ...]:
    """Return the models that exploring in *decision* should try: candidates that the target wants more."""
    rule = rule_of(current, decision)
    if rule is None or rule.safety or rule.selector is None:
        return ()
    wanted: defaultdict[str, float] = defaultdict(float)
    for each in traffic:
        for name, p in each.then.items() if each.decision == decision else ():
            wanted[name] += each.share * max(0.0, p - each.now.get(name, 0.0))
    own = {candidate.model for candidate in current.candidates(rule)}
    return tuple(
        sorted(name for name, p in wanted.items() if p > _SMALL and name in own and current.plan((name,)))
    )


def _unreachable(current: Policy, traffic: tuple[Traffic, ...]) -> Iterator[Unreachable]:
    shares: defaultdict[tuple[str, str], float] = defaultdict(float)
    for each in traffic:
        logging = each.logging(0.5)
        for name, p in each.then.items():
            if p > _SMALL and logging.get(name, 0.0) <= 0.0:
                shares[each.decision, name] += each.share * p
    for (decision, model), share in sorted(shares.items(), key=lambda item: (-item[1], item[0])):
        yield Unreachable(decision, model, share, _why(current, decision, model))


def _why(current: Policy, decision: str, model: str) -> str:
    rule = rule_of(current, decision)
    if rule is None:
        return "no decision matched, and only decisions explore"
    if rule.safety:
        return "the decision is marked as safety and explores nothing"
    if model not in {candidate.model for candidate in current.candidates(rule)}:
        return "the model is not among the decision's modelRefs"
    return "no provider serves the model under the current policy"


def _usd(found: Comparison, current: Policy, decision: str, models: tuple[str, ...]) -> float:
    """Return what a request that explores *models* in *decision* costs more than its selector's choice."""
    rule = rule_of(current, decision)
    if rule is None:
        return 0.0
    own = _odds(current, Outcome(_ROUTED, "", decision, ""))
    tried = sum(_price(found, current, decision, model) for model in models) / len(models)
    return tried - sum(p * _price(found, current, decision, model) for model, p in own.items())


def _charged(found: Comparison, current: Policy, decision: str, models: tuple[str, ...]) -> float:
    """Return what a request that explores *models* is charged on average; savings are not credited."""
    if rule_of(current, decision) is None:
        return 0.0
    own = [
        (p, _price(found, current, decision, model))
        for model, p in _odds(current, Outcome(_ROUTED, "", decision, "")).items()
    ]
    tried = [_price(found, current, decision, model) for model in models]
    return sum(p * max(0.0, usd - now) for p, now in own for usd in tried) / len(tried)


def _price(found: Comparison, policy: Policy, decision: str, model: str) -> float:
    """Return the price of a request by the log's mean tokens, else by the policy's expected ones."""
    if model not in policy.models:
        return 0.0
    mean = mean_tokens(found, model, decision)
    expected = policy.exploration.tokens if policy.exploration is not None else None
    if mean is None:
        mean = (
            (float(expected.prompt), float(expected.completion)) if expected is not None else (1000.0, 500.0)
        )
    pricing = policy.models[model].pricing
    return (mean[0] * pricing.prompt_per_1m + mean[1] * pricing.completion_per_1m) / 1_000_000
