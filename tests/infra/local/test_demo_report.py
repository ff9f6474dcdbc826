"""The demo's report: every request is in it once, and numbers follow from results and log alone."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.local.demo_report import figures, percentile, tables, worth_explaining
from replay.view import MemoryLog
from schemas.codec import Codec
from schemas.completion import Result
from tests.replay.logs import LogBuilder

LINES = 60


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered and failed requests."""
    builder = LogBuilder()
    for number in range(LINES):
        builder.answered(number)
    return builder


def view_of(builder: LogBuilder) -> MemoryLog:
    """Return the log so far."""
    return MemoryLog(builder.envelopes, builder.policies)


def results_of(builder: LogBuilder) -> list[Result]:
    """Return every result in the log."""
    codec = Codec()
    records = [codec.decode(e.value) for e in builder.envelopes if e.topic == "results"]
    return [record for record in records if isinstance(record, Result)]


def test_every_request_is_counted_once_by_decision_and_once_by_model(builder: LogBuilder) -> None:
    """Both tables share out the same requests, errors and cost."""
    found = figures(results_of(builder), view_of(builder))

    assert found.total.requests == LINES
    assert 0 < found.total.errors < LINES
    for groups in (found.decisions, found.models):
        assert sum(group.requests for group in groups) == LINES
        assert sum(group.errors for group in groups) == found.total.errors
        assert math.isclose(sum(group.cost_usd for group in groups), found.total.cost_usd)


def test_a_group_says_where_its_requests_went(builder: LogBuilder) -> None:
    """The parts of a decision are models, those of a model are decisions, and they add up."""
    found = figures(results_of(builder), view_of(builder))

    for group in (*found.decisions, *found.models):
        assert sum(group.parts.values()) == group.requests


def test_calls_are_what_the_providers_took(builder: LogBuilder) -> None:
    """Their latency comes from the completions, not from the results."""
    found = figures(results_of(builder), view_of(builder))

    assert (found.call_p50_ms, found.call_p99_ms) == (90, 90)


def test_a_cost_that_nobody_knows_adds_nothing(builder: LogBuilder) -> None:
    """NaN would spoil the total."""
    unknown = [replace(result, cost_usd=math.nan) for result in results_of(builder)]

    assert figures(unknown, view_of(builder)).total.cost_usd == 0


def test_no_results_are_no_error() -> None:
    """A demo of nothing has an empty report."""
    found = figures([], MemoryLog([], {}))

    assert (found.total.requests, found.total.p99_ms, found.decisions) == (0, 0, ())


def test_what_was_drawn_among_most_models_is_explained(builder: LogBuilder) -> None:
    """A draw shows more than a rule alone; of equals the first line is taken."""
    codec = Codec()
    decisions = {
        d.request_id: d for d in (codec.decode(e.value) for e in builder.envelopes if e.topic == "decisions")
    }
    order = list(decisions)
    chosen = worth_explaining(view_of(builder), order)

    assert chosen is not None
    assert decisions[chosen].core.selector == "weighted"
    same = [i for i in order if len(decisions[i].core.rule.leaf) == len(decisions[chosen].core.rule.leaf)]
    assert chosen == next(i for i in same if decisions[i].core.selector == "weighted")


def test_nothing_decided_is_nothing_to_explain() -> None:
    """An empty log has no request worth explaining."""
    assert worth_explaining(MemoryLog([], {}), [b"0" * 16]) is None


def test_the_tables_name_every_group(builder: LogBuilder) -> None:
    """What the figures hold can be read in the terminal."""
    found = figures(results_of(builder), view_of(builder))
    written = io.StringIO()
    Console(width=160, file=written).print(*tables(found), sep="\n")
    text = written.getvalue()

    for group in (*found.decisions, *found.models, found.total):
        assert group.name in text


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_percentile_is_the_least_value_that_covers_its_share(values: list[int], share: float) -> None:
    """At least that share of the values is at or below it, and of no smaller value."""
    found = percentile(values, share)

    assert found in values
    assert sum(v <= found for v in values) >= share * len(values)
    assert sum(v < found for v in values) < max(share * len(values), 1)
