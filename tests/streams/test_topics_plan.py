"""The difference between the broker's topics and the catalogue, and who may do what with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.topics import CATALOGUE, family, logical_name
from streams.acls import CLIENTS, Acl, acls_for, commands, principals
from streams.app import archived_topics, load_registries, signal_roles
from streams.topics_plan import Existing, Plan, Wanted, difference, wanted_topics

load_registries()
PREFIX = "p"
WANTED = wanted_topics(PREFIX, ["north", "south"], partitions=6, replication=3)


def on_broker(topics: list[Wanted] | None = None) -> dict[str, Existing]:
    """Return a broker that has exactly *topics*, or all that are wanted."""
    chosen = WANTED if topics is None else topics
    return {t.name: Existing(t.partitions, t.replication, dict(t.settings), {}) for t in chosen}


def test_a_broker_that_matches_has_no_difference() -> None:
    """What `apply` made, `plan` finds nothing wrong with."""
    assert difference(WANTED, on_broker(), PREFIX) == Plan((), ())


def test_every_topic_of_the_catalogue_is_wanted() -> None:
    """A family is there with each of its members, none by its placeholder."""
    names = [logical_name(PREFIX, topic.name) for topic in WANTED]

    assert {family(name).name for name in names} == {topic.name for topic in CATALOGUE}
    assert [name for name in names if "<" in name] == []


def test_what_is_missing_is_created() -> None:
    """Only that; the others are left as they are."""
    gone = WANTED[3].name
    plan = difference(WANTED, on_broker([t for t in WANTED if t.name != gone]), PREFIX)

    assert [(change.topic, change.what, change.why) for change in plan.changes] == [(gone, "create", "")]


@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [
        ("retention.ms", "1000", False),
        ("retention.ms", "-1", True),
        ("retention.ms", str(10**15), True),
        ("message.timestamp.type", "CreateTime", False),
        ("max.message.bytes", "1000", False),
        ("min.insync.replicas", "1", False),
        ("cleanup.policy", "compact", False),
    ],
)
def test_a_setting_that_differs_is_set_unless_records_would_be_lost(
    key: str, value: str, *, refused: bool
) -> None:
    """A longer retention is set, a shorter one is refused unless it is meant."""
    broker = on_broker()
    name = f"{PREFIX}.requests.v1"
    broker[name] = replace(broker[name], settings={**broker[name].settings, key: value})
    (change,) = difference(WANTED, broker, PREFIX).changes
    (meant,) = difference(WANTED, broker, PREFIX, shorten=True).changes

    assert (change.topic, change.what, change.has, bool(change.why)) == (name, key, value, refused)
    assert meant.why == ""


@pytest.mark.parametrize("count", [1, 5, 7, 60])
def test_partition_counts_never_change(count: int) -> None:
    """Neither fewer nor more: positions would no longer line up."""
    broker = on_broker()
    name = f"{PREFIX}.requests.v1"
    broker[name] = replace(broker[name], partitions=count)
    (change,) = difference(WANTED, broker, PREFIX, shorten=True).changes

    assert change.what == "partitions"
    assert "never change within a major version" in change.why


def test_replicas_and_compaction_are_refused() -> None:
    """The one needs to know where to, the other deletes."""
    broker = on_broker()
    broker[f"{PREFIX}.requests.v1"] = replace(broker[f"{PREFIX}.requests.v1"], replication=1)
    policies = f"{PREFIX}.control.policy.v1"
    broker[policies] = replace(
        broker[policies], settings={**broker[policies].settings, "cleanup.policy": "delete"}
    )
    plan = difference(WANTED, broker, PREFIX)

    assert {change.what for change in plan.refused} == {"replication", "cleanup.policy"}


def test_other_topics_are_named_and_left() -> None:
    """Those of the prefix are told, those of others are not even looked at."""
    broker = on_broker()
    broker["p.jobs.west.batch.v1"] = broker["theirs"] = Existing(1, 1, {}, {})

    assert difference(WANTED, broker, PREFIX) == Plan((), ("p.jobs.west.batch.v1",))


ROLES = [
    "admission", *(f"signals.{role}" for role in signal_roles()), "decision", "dispatch", "retry",
    "provider.north", "provider.south", "archive",
]  # fmt: skip


def rights(role: str) -> set[tuple[str, str]]:
    """Return (operation, logical topic) of *role*."""
    found = acls_for(role, PREFIX, ["north", "south"])
    return {(acl.operation, logical_name(PREFIX, acl.name)) for acl in found if acl.resource == "topic"}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_join_its_own_group_and_no_other(role: str) -> None:
    """Whoever could join another's group could take its records away."""
    groups = [acl for acl in acls_for(role, PREFIX, ["north", "south"]) if acl.resource == "group"]

    assert groups == [Acl(role, "group", f"{PREFIX}.{role}", "read")]


def test_the_archive_reads_what_it_archives_and_writes_nothing() -> None:
    """Beside it only the control topics, from which it learns of policies and pauses."""
    archived = {("read", topic) for topic in archived_topics()}

    assert rights("archive") == archived | {("read", "control.events")}


def test_a_signal_role_writes_its_own_signals_only() -> None:
    """It reads requests, and neither decisions nor answers."""
    own = rights("signals.heuristics")

    assert ("write", "signals.heuristics") in own
    assert ("write", "signals.embedding") not in own
    assert {name for operation, name in own if operation == "read"} == {
        "requests",
        "control.policy",
        "control.events",
    }


def test_a_provider_reads_its_own_jobs_and_hands_on_to_others() -> None:
    """It advances a plan to any provider, but sees nobody else's jobs and ledger."""
    own = rights("provider.north")

    assert {("read", "jobs.north.batch"), ("write", "jobs.south.batch"), ("write", "attempts.north")} <= own
    assert ("read", "jobs.south.batch") not in own
    assert {("write", "attempts.south"), ("read", "attempts.south"), ("read", "results")}.isdisjoint(own)


def test_only_admission_and_submit_write_requests() -> None:
    """Requests are written by whoever admits them, and put back by a redrive."""
    writers = {role for role in (*ROLES, *CLIENTS) if ("write", "requests") in rights(role)}

    assert writers == {"admission", "submit", "dlq"}


def test_every_topic_has_somebody_who_may_read_or_write_it() -> None:
    """And nobody may touch a topic that is not in the catalogue."""
    names = {logical_name(PREFIX, topic.name) for topic in WANTED}

    assert {name for role in (*ROLES, *CLIENTS) for _, name in rights(role)} == names


def test_the_lines_are_those_of_kafkas_own_tool() -> None:
    """Whoever may not create ACLs from here can hand them to somebody who does."""
    who = principals(["retry"], "User:CN={role},O=acme")
    lines = list(commands(acls_for("retry", PREFIX, []), who))

    assert (
        "kafka-acls.sh --add --allow-principal 'User:CN=retry,O=acme' --operation Read --group 'p.retry'"
        in lines
    )
