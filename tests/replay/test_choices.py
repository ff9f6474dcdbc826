"""The table made of a log: its probabilities are those of deciding one by one, and counts add up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agents.decision import REQUESTED_MODEL, decide
from agents.errors import InvalidRecord
from agents.policy import Policy
from replay.cases import Case, cases
from replay.choices import Choices, Wanted, choices
from replay.logged import KeptLog
from replay.table import table_of
from replay.view import MemoryLog
from replay.what_if import recipe_of
from schemas.decision import DecisionCore
from schemas.feedback import Feedback
from schemas.topics import FEEDBACK
from tests.replay.logs import POLICY_YAML, LogBuilder
from tests.replay.test_comparison import LACKING, OTHERS, of


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests, some of which name a model, with a repeated decision and some ratings."""
    found = LogBuilder()
    for number in range(90):
        request, decision = found.answered(number)
        if number % 3:
            rating = Feedback(
                request.request_id, "judge", "quality", number / 90, 0.7, request.accepted_at + 50
            )
            found.append(FEEDBACK, decision.origin.partition, rating, request.request_id)
            found.append(FEEDBACK, 0, replace(rating, reward=9.0, arrived_at=rating.arrived_at + 1))
    found.append("decisions", decision.origin.partition, decision, request.request_id)
    found.append(FEEDBACK, 1, replace(rating, request_id=b"nobody's request"))
    found.append(FEEDBACK, 1, replace(rating, reward=math.nan))
    for number, model in enumerate(("large", "tiny"), 200):
        request, origin = found.request(number, model)
        found.decision(request, origin, [], [])
    return found


def made(builder: LogBuilder, policy: Policy) -> Choices:
    """Return the choices of that log under *policy*."""
    return choices(KeptLog(MemoryLog(builder.envelopes, builder.policies)), Wanted(policy))


def odds(core: DecisionCore) -> dict[str, float]:
    """Return the probability of each action of a decision: a failure is certain."""
    if core.candidates:
        return {k: p for k, p in zip(core.candidates, core.propensities, strict=True) if p > 0.0}
    return {f"({core.failure})": 1.0}


def row_odds(row: dict[str, float], prefix: str) -> dict[str, float]:
    """Return the actions with any probability in the columns *prefix* of *row*."""
    return {name.split(":", 1)[1]: p for name, p in row.items() if name.startswith(prefix) and p > 0.0}


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "served"])
def test_probabilities_are_those_of_deciding_one_by_one(builder: LogBuilder, name: str) -> None:
    """Of the logged policy as logged, of the target as its decision over the same signals states them."""
    policy = of(OTHERS[name])
    rows = {row["request_id"]: row for row in made(builder, policy).table.to_pylist()}
    seen = 0
    for case in cases(MemoryLog(builder.envelopes, builder.policies)):
        assert isinstance(case, Case)
        core, row = case.decision.core, rows[case.decision.request_id.hex()]
        recipe = recipe_of(core.facts.get(REQUESTED_MODEL) or "", core.recipe, policy)
        would = decide(
            policy, recipe=recipe, request_id=case.decision.request_id, sets=case.sets, facts=core.facts
        )
        assert row_odds(row, "logged:") == pytest.approx(odds(core))
        assert row_odds(row, "target:") == pytest.approx(odds(would))
        seen += 1

    assert seen == 93


def test_a_candidate_that_is_not_served_is_a_failure_of_its_own(builder: LogBuilder) -> None:
    """Its probability goes to the failure that the request would end with."""
    found = made(builder, of(OTHERS["served"])).table

    assert "target:(model_not_served:tiny)" in found.column_names


def test_counts_add_up(builder: LogBuilder) -> None:
    """The first rating of a request counts; repeated, unmatched and unusable ones are told."""
    found = made(builder, of(POLICY_YAML))
    counts, table = found.counts, found.table

    assert (counts.decisions, counts.repeats, len(table)) == (92, 1, 92)
    assert (counts.rated, counts.missing) == (60, 32)
    assert (counts.repeated_ratings, counts.unmatched_ratings, counts.unusable_ratings) == (60, 1, 1)
    assert max(reward for reward in table["reward"].to_pylist() if reward is not None) < 1.0
    assert counts.unanswered == 92 - sum(cost is not None for cost in table["cost_usd"].to_pylist())
    assert found.clustered_by == "subject"


def test_the_table_reads_and_requests_without_a_request_are_shredded(builder: LogBuilder) -> None:
    """What has lost its request stays a choice, and is counted; so is what has lost its signals."""
    policy = of(POLICY_YAML)
    gone = [e for e in builder.envelopes if e.topic != "requests"]
    emptied = [e for e in builder.envelopes if not e.topic.startswith("signals")]
    one, other = (
        choices(KeptLog(MemoryLog(kept, builder.policies)), Wanted(policy)) for kept in (gone, emptied)
    )

    assert table_of(one.table).log.n == 92
    assert one.counts.shredded == 92
    assert one.clustered_by == "request"
    assert other.counts.shredded == other.counts.unknown == 90


def test_a_lacking_signal_is_unknown_and_named(builder: LogBuilder) -> None:
    """The rows that need it are counted by signal."""
    found = made(builder, of(LACKING))

    assert found.counts.unknown == 90
    assert found.lacking == {"keyword:novel": 90}


def test_failed_requests_get_the_reward_that_is_stated(builder: LogBuilder) -> None:
    """Where nobody answered; such a row was observed for certain."""
    log = KeptLog(MemoryLog(builder.envelopes, builder.policies))
    found = choices(log, Wanted(of(POLICY_YAML), failed=-1.0))
    rows = [row for row in found.table.to_pylist() if row["cost_usd"] is None and row["reward"] is not None]

    assert rows
    assert all((row["reward"], row["observation"]) == (-1.0, 1.0) for row in rows if row["reward"] < 0.0)


class Aged(KeptLog):
    """A log of which some answers were dropped by age."""

    def dropped(self) -> dict[str, dict[str, object]]:
        """Return what was dropped."""
        return {"completions": {"files": 1, "rows": 40, "from": "2026-09-01", "to": "2026-09-02"}}


def test_answers_that_retention_dropped_are_no_failures(builder: LogBuilder) -> None:
    """They are not told from requests that nobody answered, so failures get no reward there; it is told."""
    aged = Aged(MemoryLog(builder.envelopes, builder.policies))
    with pytest.raises(InvalidRecord, match="40 rows of completions were dropped by retention"):
        choices(aged, Wanted(of(POLICY_YAML), failed=-1.0))

    assert choices(aged, Wanted(of(POLICY_YAML))).as_json()["dropped"]["completions"]["rows"] == 40
    assert made(builder, of(POLICY_YAML)).as_json()["dropped"] == {}


def test_columns_of_the_table_are_those_that_are_documented(builder: LogBuilder) -> None:
    """Every column is of the contract, or one to slice by."""
    names = set(made(builder, of(POLICY_YAML)).table.column_names)
    fixed = {n for n in names if not n.startswith(("target:", "logged:", "x_"))}

    assert fixed == {
        *("request_id", "cluster", "action", "propensity", "reward", "observation"),
        *("tenant", "decision", "class", "data_class"),
        *("cost_usd", "prompt_tokens", "completion_tokens", "latency_ms"),
    }
