"""Exploring: exact propensities, a cap that holds, and never across a safety decision."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.decision import decide, facts_of
from agents.draw import unit
from agents.errors import ConfigError
from agents.exploration import DAY_MS, OPEN, SPENT, Account
from agents.loading.findings import findings
from agents.policy import Policy
from schemas.decision import Decision, DecisionCore, DecisionMeta
from schemas.identity import Origin
from tests.agents.samples import NOW, policy

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, pricing: {prompt_per_1m: 1.0, completion_per_1m: 2.0}, backend_refs: [{name: north}]}
    - {name: large, pricing: {prompt_per_1m: 5.0, completion_per_1m: 10.0}, backend_refs: [{name: south}]}
    - {name: cheap, pricing: {prompt_per_1m: 0.5, completion_per_1m: 1.0}, backend_refs: [{name: south}]}
    - {name: lost, pricing: {prompt_per_1m: 0.5, completion_per_1m: 1.0}}
routing:
  decisions:
    - name: all
      priority: 1
      modelRefs:
        - {model: small, weight: 2}
        - {model: large, weight: 1}
        - {model: cheap, weight: 0}
        - {model: lost, weight: 0}
      ALGORITHM
      SAFETY
recipes:
  - name: lab
    routing: {decisions: [{name: all, modelRefs: [{model: small}, {model: large}]}]}
entrypoints:
  - {model_names: [lab-model], recipe: lab}
exploration:
  max_extra_usd_per_day: 1.0
  tokens: {prompt: 1000, completion: 1000}
  decisions:
    all: {epsilon: 0.2, candidates: [small, large]}
"""
USD = {"small": 0.003, "large": 0.015, "cheap": 0.0015, "lost": 0.0015}
PAID = facts_of("", OPEN)


def written(text: str = YAML, *, algorithm: str = "static", safety: bool = False) -> str:
    """Return a policy as text."""
    text = text.replace("ALGORITHM", f"algorithm: {{type: {algorithm}}}")
    return text.replace("SAFETY", "safety: true" if safety else "safety: false")


def decided(under: Policy, number: int, said: str = OPEN, recipe: str = "") -> DecisionCore:
    """Return the decision of request *number*."""
    request_id = hashlib.sha256(str(number).encode()).digest()[:16]
    return decide(under, recipe=recipe, request_id=request_id, sets=[], facts=facts_of("", said))


def record(core: DecisionCore, at: int, usd: float) -> Decision:
    """Return *core* as the log holds it."""
    return Decision(bytes(16), Origin(0, 0), core, DecisionMeta((), at, 0, (), usd))


def codes(text: str) -> set[str]:
    """Return the codes of all that is to be said of *text*."""
    return {finding.code for finding in findings(Policy.read(text), {})}


def test_a_policy_without_exploration_keeps_its_hash() -> None:
    """The section is no part of the normal form where it is not given."""
    plain = Policy.parse(written().split("exploration:")[0])

    assert "exploration" not in plain.normal_form
    assert plain.trials == {}


@pytest.mark.parametrize("algorithm", ["static", "weighted"])
@given(
    epsilon=st.floats(0.0, 1.0),
    among=st.sets(st.sampled_from(["small", "large", "cheap", "lost"]), min_size=1),
)
@settings(max_examples=40)
def test_propensities_are_the_mixture_and_sum_to_one(algorithm: str, epsilon: float, among: set[str]) -> None:
    """Each candidate has (1 - e) of its odds, those explored share e; one nobody serves has none of it."""
    text = f"all: {{epsilon: {epsilon!r}, candidates: [{', '.join(sorted(among))}]}}"
    core = decided(
        policy(
            written(
                YAML.replace("all: {epsilon: 0.2, candidates: [small, large]}", text), algorithm=algorithm
            )
        ),
        1,
    )
    own = {"static": (1.0, 0.0, 0.0, 0.0), "weighted": (2 / 3, 1 / 3, 0.0, 0.0)}[algorithm]
    tried = sorted(among - {"lost"})
    share = epsilon / len(tried) if tried else 0.0
    kept = 1.0 - epsilon if tried else 1.0
    expected = [kept * q + share * (name in tried) for q, name in zip(own, core.candidates, strict=True)]

    assert core.propensities == pytest.approx(expected, abs=1e-15)
    assert sum(core.propensities) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("algorithm", ["static", "weighted"])
def test_choices_come_as_often_as_their_propensities_say(algorithm: str) -> None:
    """Over many requests the shares drawn lie within five standard errors of what every decision logged."""
    under, n = policy(written(algorithm=algorithm)), 20_000
    cores = [decided(under, number) for number in range(n)]
    [propensities] = {core.propensities for core in cores}
    for name, p in zip(cores[0].candidates, propensities, strict=True):
        drawn = sum(core.chosen == name for core in cores)
        assert abs(drawn - n * p) <= 5 * (n * p * (1 - p)) ** 0.5


def test_who_does_not_explore_is_answered_as_without_exploring() -> None:
    """Turning exploration on changes nothing but the requests that it draws, and names their incumbent."""
    under = policy(written(algorithm="weighted"))
    for number in range(2000):
        core, plain = decided(under, number), decided(under, number, "")
        explores = core.explored.draw < core.explored.epsilon

        assert core.explored.incumbent == plain.chosen
        assert explores or core.chosen == plain.chosen
        assert core.explored.extra_usd == pytest.approx(USD[core.chosen] - USD[plain.chosen], abs=1e-15)


@pytest.mark.parametrize("said", ["", SPENT])
def test_without_money_nothing_is_explored(said: str) -> None:
    """A budget that is spent, or that nobody vouches for, leaves the odds of the selector alone."""
    core = decided(policy(written()), 3, said)

    assert core.propensities == (1.0, 0.0, 0.0, 0.0)
    assert (core.explored.epsilon, core.chosen) == (0.0, "small")


def test_only_the_named_decision_explores() -> None:
    """A decision of a recipe is named with its recipe; the one of the same name elsewhere is another."""
    rooted = policy(written())
    named = policy(written(YAML.replace("    all: {eps", "    lab/all: {eps")))

    assert decided(rooted, 1, recipe="lab").explored.epsilon == 0.0
    assert decided(named, 1, recipe="lab").explored.epsilon == 0.2
    assert decided(named, 1).explored.epsilon == 0.0


def test_a_safety_decision_explores_nothing() -> None:
    """Such a policy is refused, and one that got past the check would not explore there all the same."""
    with pytest.raises(ConfigError, match="safety decision explores nothing"):
        Policy.parse(written(safety=True))
    under = policy(written())
    safe = under.routing.decisions[0].model_copy(update={"safety": True})
    slipped = under.model_copy(update={"routing": under.routing.model_copy(update={"decisions": (safe,)})})
    fresh = Policy.model_construct(**{name: getattr(slipped, name) for name in Policy.model_fields})

    assert {decided(fresh, number).chosen for number in range(200)} == {"small"}


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("[small, large]}\n", "[small, alien]}\n", "'alien' is no candidate of 'all'"),
        ("    all: {eps", "    none: {eps", "no decision has this name"),
        ("epsilon: 0.2", "epsilon: 1.5", "less than or equal to 1"),
        ("  max_extra_usd_per_day: 1.0\n", "", "exploring needs a cap"),
        ("candidates: [small, large]}\n", "candidates: []}\n", "the candidates to explore are needed"),
    ],
)
def test_what_cannot_be_explored_is_refused(was: str, now: str, message: str) -> None:
    """The error says what is wrong, and where."""
    with pytest.raises(ConfigError, match=message):
        Policy.parse(written(YAML.replace(was, now)))


def test_what_is_odd_in_exploring_is_found() -> None:
    """A cap below one request, models without a price, and exploring the incumbent alone are told."""
    odd = {"never-affordable", "unpriced", "explores-nothing"}

    assert not odd & codes(written())
    assert "never-affordable" in codes(written(YAML.replace("per_day: 1.0", "per_day: 0.001")))
    assert "unpriced" in codes(
        written(YAML.replace("pricing: {prompt_per_1m: 5.0, completion_per_1m: 10.0}, ", ""))
    )
    assert "explores-nothing" in codes(written(YAML.replace("[small, large]}\n", "[small]}\n")))
    assert "explores-nothing" in codes(written(YAML.replace("[small, large]}\n", "[lost]}\n")))
    assert "explores-nothing" in codes(written(algorithm="automix"))


@pytest.mark.parametrize("algorithm", ["automix", "hybrid"])
def test_a_decision_whose_algorithm_is_not_here_explores_nothing(algorithm: str) -> None:
    """It chooses nobody, so there is nobody to explore beside; one without an algorithm explores."""
    under = policy(written(algorithm=algorithm))

    assert under.trials == {}
    assert decided(under, 1).failure == f"algorithm_unsupported:{algorithm}"
    assert list(policy(written(YAML.replace("ALGORITHM", ""))).trials) == [("", "all")]


@given(
    cap=st.floats(0.0, 0.5),
    steps=st.lists(st.integers(0, DAY_MS // 3), max_size=60),
    crash=st.integers(1, 20),
    partitions=st.integers(1, 6),
)
@settings(max_examples=60)
def test_the_cap_of_a_day_is_never_exceeded(
    cap: float, steps: list[int], crash: int, partitions: int
) -> None:
    """Whatever the times, and however often the account is rebuilt from its last record."""
    text = YAML.replace("per_day: 1.0", f"per_day: {cap!r}").replace("epsilon: 0.2", "epsilon: 1.0")
    under = policy(written(text))
    account, now = Account(partitions), NOW
    days: dict[int, float] = {}
    for number, step in enumerate(steps * 3):
        now += step // 8
        core = decided(under, number, account.fact(under, now))
        account.charge(core)
        last = record(core, now, account.spent)
        days[now // DAY_MS] = days.get(now // DAY_MS, 0.0) + max(0.0, core.explored.extra_usd)
        if number % crash == 0:
            account = Account(partitions)
            account.note(last)

    assert all(spent <= cap / partitions + 1e-12 for spent in days.values())


def test_a_new_day_has_a_new_budget() -> None:
    """What was spent yesterday does not count; a clock that goes back across midnight stays in its day."""
    under = policy(written())
    account = Account(1)
    account.note(record(decided(under, 1), NOW, 0.999))

    assert account.fact(under, NOW) == SPENT
    assert account.fact(under, NOW - DAY_MS) == SPENT
    assert account.fact(under, NOW + DAY_MS) == OPEN
    assert account.fact(under, NOW) == OPEN
    assert account.spent == 0.0


def test_a_shadow_does_not_spend_and_a_saving_is_not_credited() -> None:
    """Only what costs more is charged."""
    under = policy(written(YAML.replace("[small, large]}\n", "[cheap]}\n").replace("0.2", "1.0")))
    core = decided(under, 1)
    account = Account(1)
    account.charge(core)

    assert core.explored.extra_usd == pytest.approx(-0.0015)
    assert account.spent == 0.0


def test_the_expected_cost_is_the_mean_of_what_is_logged() -> None:
    """What is planned for exploring is what the requests cost more in the long run."""
    under, n = policy(written(algorithm="weighted")), 20_000
    [trial] = under.trials.values()
    extras = np.array([decided(under, number).explored.extra_usd for number in range(n)])
    own = under.routing.decisions[0].selector
    assert own is not None
    expected = trial.expected_extra(own.odds(under.candidates(under.routing.decisions[0])).propensities)

    assert abs(extras.mean() - expected) <= 5 * extras.std() / n**0.5
    assert trial.dearest >= extras.max()


def test_the_record_alone_tells_whether_a_request_explored() -> None:
    """Epsilon, salt and draw are in the core, so that anyone can draw again."""
    request_id = hashlib.sha256(b"5").digest()[:16]
    core = decided(policy(written(YAML.replace("  tokens:", "  salt: spring\n  tokens:"))), 5)

    assert (core.explored.epsilon, core.explored.salt) == (0.2, "spring")
    assert core.explored.draw == unit("spring", request_id, 0, "exploration")
