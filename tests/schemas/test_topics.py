"""The topic catalogue is complete, and names go to the broker and back unharmed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.topics import CATALOGUE, RECORDS, Topic, family, full_name, logical_name, table


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_every_record_travels_on_some_topic(cls: type) -> None:
    """A record that no topic carries is dead code."""
    assert any(cls in topic.records for topic in CATALOGUE)


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_every_topic_says_who_writes_it_and_who_reads_it(topic: Topic) -> None:
    """A topic has a producer, and a consumer unless it is one of the ends that only people read."""
    assert topic.producers
    assert topic.consumers or topic.name in {"completions", "decisions.shadow", "feedback"}
    assert topic.records or topic.note
    assert topic.retention in {"body", "decision", "forever"}
    assert topic.partitions in {"all", "one"}
    assert set(topic.records) <= set(RECORDS)


def test_names_of_topics_are_unique_and_families_do_not_overlap() -> None:
    """A logical name belongs to one catalogue entry."""
    stems = [topic.name.split("<", 1)[0] for topic in CATALOGUE]

    assert len(set(stems)) == len(stems)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        (topics.inbox_topic("crm"), "inbox.<source>"),
        (topics.signals_topic("heuristics"), "signals.<role>"),
        (topics.jobs_topic("north"), "jobs.<provider>.<class>"),
        (topics.attempts_topic("north"), "attempts.<provider>"),
        (topics.retry_topic("10s"), "retry.<delay>"),
        (topics.REQUESTS, "requests"),
        (topics.DEAD_LETTERS, "dead-letters"),
        (topics.CONTROL_EVENTS, "control.events"),
    ],
)
def test_a_logical_name_finds_its_catalogue_entry(name: str, entry: str) -> None:
    """Families are found by any of their members."""
    assert family(name).name == entry


def test_a_name_of_no_family_is_a_key_error() -> None:
    """An unknown topic is not silently filed under another."""
    with pytest.raises((KeyError, StopIteration)):
        family("nonsense")


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), st.sampled_from([t.name for t in CATALOGUE]))
def test_a_full_name_leads_back_to_the_logical_one(prefix: str, name: str) -> None:
    """The broker's name of a topic is its logical name with prefix and version around it."""
    assert logical_name(prefix, full_name(prefix, name)) == name


def test_a_foreign_topic_is_refused() -> None:
    """A topic of another prefix or version has no logical name."""
    for foreign in ("other.requests.v1", "signalbox.requests.v9", "requests"):
        with pytest.raises(ValueError, match="is no topic of prefix"):
            logical_name("signalbox", foreign)


def test_the_table_has_a_row_for_every_topic() -> None:
    """The documentation's table is made from the catalogue."""
    lines = table().splitlines()

    assert len(lines) == 2 + len(CATALOGUE)
    assert all(f"`{topic.name}`" in line for topic, line in zip(CATALOGUE, lines[2:], strict=True))
