"""What `status` calls stuck, and what it does not: judged from what workers and broker tell."""

from pathlib import Path
from typing import Any

import pytest

from infra.local.control import Health, Status
from infra.local.standing import Account, Stuck, as_json, judged, standing_still, told
from schemas.control import Paused
from streams.standing import GroupLag, Standing

FOLDER = Path("stack")
AT = 1_790_000_000_000
UNPUBLISHED = "it waits for a policy that is not published"
WELL = {"still_s": 500.0, "waits_for": "", "reasons": []}


def worker(role: str, report: dict[str, Any] | None, *, pid: int | None = 7, healthy: bool = True) -> Health:
    """Return a worker as `status` sees it."""
    return Health(f"{role}/0", "", pid, healthy, 0, f"{role}.log", report)


def standing(*groups: GroupLag, **more: Any) -> Standing:
    """Return what the broker tells."""
    given = {"pauses": (), "dead_letters": 0, "policy_active": True, **more}
    return Standing(AT, groups, **given)


def found(workers: tuple[Health, ...], seen: Standing | None, *, away: bool = False) -> list[Stuck]:
    """Return what is stuck."""
    return list(judged(Status("running", 1, (), workers), seen, FOLDER, away=away))


def test_idle_paused_and_busy_workers_are_not_stuck() -> None:
    """A long quiet time is nothing; nor is a pause, nor a backlog that is being worked off."""
    workers = (
        worker("decision", WELL),
        worker("dispatch", {**WELL, "waits_for": "paused by ada"}),
        worker("provider.north", {**WELL, "still_s": 0.4, "reasons": ["x, for 1 s"]}),
    )
    seen = standing(GroupLag("provider.north", 90_000, AT - 3_600_000), GroupLag("dispatch", 5, AT - 60_000))

    assert found(workers, seen) == []


@pytest.mark.parametrize(
    ("one", "why", "since"),
    [
        (worker("decision", None, pid=None, healthy=False), "it does not run", 60.0),
        (worker("decision", None, healthy=False), "it does not answer", 60.0),
        (worker("decision", {**WELL, "waits_for": "policy"}), UNPUBLISHED, 500.0),
        (worker("decision", {**WELL, "reasons": ["5 unread, for 99 s"]}), "5 unread, for 99 s", 500.0),
        (worker("decision", {**WELL, "still_s": 1.0}, healthy=False), "it is not ready", 60.0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_each_way_of_standing_still_is_named(one: Health, why: str, since: float) -> None:
    """What is stuck, since when, why, and where to look."""
    (stuck,) = found((one,), standing(GroupLag("decision", 3, AT - 60_000)))

    assert (stuck.what, stuck.why, stuck.since_s) == ("decision/0", why, since)
    assert "decision.log" in stuck.next_step or "--policy" in stuck.next_step


def test_records_that_nobody_serves_are_stuck() -> None:
    """A role with lag and no worker is named with the command that starts one."""
    (stuck,) = found((worker("decision", WELL),), standing(GroupLag("dispatch", 9, AT - 5_000)))

    assert (stuck.what, stuck.since_s, stuck.next_step) == ("dispatch", 5.0, "`signalbox worker dispatch`")


def test_a_broker_that_is_away_is_stuck_and_a_bare_stack_is_not() -> None:
    """Only the first is a fault."""
    assert [s.what for s in found((), None, away=True)] == ["the topics"]
    assert found((), None) == []


def test_people_and_programs_are_told_the_same() -> None:
    """Pauses, lag, dead letters and lanes are in both forms, with the next command."""
    seen = standing(
        GroupLag("dispatch", 9, AT - 5_000),
        pauses=(Paused("provider", "north", "ada", "red", AT - 1),),
        dead_letters=4,
    )
    workers = (worker("provider.north", {**WELL, "lanes": {"large": AT}}),)
    account = Account(Status("running", 1, (), workers), seen, tuple(found(workers, seen)))
    text, shown = "\n".join(told(account)), as_json(account)

    for part in (
        "signalbox resume --provider north",
        "ada",
        "red",
        "9 records",
        "signalbox dlq list",
        "large",
    ):
        assert part in text
    assert (shown["good"], shown["dead_letters"], shown["groups"][0]["lag"]) == (False, 4, 9)
    assert (shown["pauses"][0]["resume"], shown["stuck"][0]["what"]) == (
        "signalbox resume --provider north",
        "dispatch",
    )
    assert shown["lanes"] == {"provider.north/0": {"large": AT}}


def test_what_finished_nothing_between_two_looks_at_a_broker_is_stuck() -> None:
    """Not what moved, nor what waits for a short time or in a retry tier, nor what an operator paused."""
    old, young = AT - 90_000, AT - 5_000
    first = standing(
        GroupLag("decision", 9, old), GroupLag("dispatch", 9, old), GroupLag("admission", 9, young),
        GroupLag("provider.north", 9, old), GroupLag("provider.south", 9, old),
        GroupLag("retry", 9, old),
    )  # fmt: skip
    pauses = (Paused("provider", "south", "ada", "", AT),)
    second = standing(
        GroupLag("decision", 12, old), GroupLag("dispatch", 8, old), GroupLag("admission", 9, young),
        GroupLag("provider.north", 9, old + 1), GroupLag("provider.south", 9, old),
        GroupLag("retry", 9, old), pauses=pauses,
    )  # fmt: skip
    everything = standing(*second.groups, pauses=(Paused("all", "", "ada", "", AT),))

    (stuck,) = standing_still(first, second)
    assert (stuck.what, stuck.since_s) == ("decision", 90.0)
    assert "12 records" in stuck.why
    assert list(standing_still(first, everything)) == []


@pytest.mark.parametrize(("waits_s", "stuck"), [(45, ["decision"]), (181, ["decision", "provider.north"])])
def test_a_call_that_a_provider_is_slow_with_is_not_stuck(waits_s: int, stuck: list[str]) -> None:
    """A provider's group may take as long as the active policy lets calls of one job take."""
    since = AT - waits_s * 1000
    groups = (GroupLag("decision", 1, since), GroupLag("provider.north", 1, since))
    seen = standing(*groups, longest_call_s=180.0)

    assert [one.what for one in standing_still(seen, seen)] == stuck
