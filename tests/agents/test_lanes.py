"""Lanes pause by themselves, and circuits open and close by what their calls say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lanes import BreakerLimits, Ending, Lane, Lanes

SMALL, LARGE = Lane("north", "small"), Lane("north", "large")
ABROAD = Lane("north", "small", "eu")
NOW = 1_800_000_000_000
LIMITS = BreakerLimits()
BROKE: list[Ending] = ["failed"] * LIMITS.least


def after(*endings: Ending) -> Lanes:
    """Return lanes of which the small one ended calls so."""
    lanes = Lanes()
    for ending in endings:
        lanes.end(SMALL, NOW, ending)
    return lanes


def broken() -> Lanes:
    """Return lanes of which the small one's circuit has just opened."""
    return after(*BROKE)


def is_free(lanes: Lanes, lane: Lane, now: int) -> bool:
    """Tell whether a call may begin."""
    return lanes.free_at(lane, now) <= now


def test_a_pause_holds_its_lane_and_no_other() -> None:
    """Another model, and the same one in another region, go on; a shorter pause shortens nothing."""
    lanes = Lanes()
    lanes.pause(SMALL, NOW + 30_000)
    lanes.pause(SMALL, NOW + 10)

    assert lanes.free_at(SMALL, NOW) == NOW + 30_000
    assert is_free(lanes, SMALL, NOW + 30_000)
    assert is_free(lanes, LARGE, NOW)
    assert is_free(lanes, ABROAD, NOW)
    assert lanes.states(NOW) == [(SMALL, "paused")]


@pytest.mark.parametrize(
    ("endings", "opens"),
    [
        (["failed"] * 9, False),
        (["failed"] * 10, True),
        (["ok"] * 6 + ["failed"] * 5, False),
        (["ok"] * 5 + ["failed"] * 5, True),
        (["slow"] * 7 + ["ok"] * 3, False),
        (["slow"] * 8 + ["ok"] * 2, True),
        (["slow"] * 6 + ["ok"] * 2 + ["failed"] * 2, True),
        (["void"] * 30, False),
    ],
)
def test_a_circuit_opens_by_errors_and_by_slowness(endings: list[Ending], opens: bool) -> None:  # noqa: FBT001 - a case
    """Half of at least ten calls failed, or four fifths were no good in time; a rate limit is neither."""
    assert after(*endings).is_open(SMALL, NOW) is opens


def test_an_open_circuit_lets_one_probe_through() -> None:
    """When its time is over one call begins; a second one waits for what the first says."""
    lanes = broken()
    later = NOW + LIMITS.open_ms

    assert not is_free(lanes, SMALL, later - 1)
    assert is_free(lanes, SMALL, later)
    assert lanes.begin(SMALL)
    assert not is_free(lanes, SMALL, later)
    assert lanes.states(later) == [(SMALL, "probing")]


def test_a_good_probe_closes_the_circuit() -> None:
    """Afterwards its past is forgotten: one failure does not open it again."""
    lanes = broken()
    lanes.end(SMALL, NOW + 5_000, "ok", probe=lanes.begin(SMALL))
    lanes.end(SMALL, NOW + 5_001, "failed")

    assert is_free(lanes, SMALL, NOW + 5_001)
    assert lanes.states(NOW + 5_001) == []


def test_a_failed_probe_doubles_the_wait_up_to_its_bound() -> None:
    """5, 10, 20 seconds and so on, two minutes at most."""
    lanes, now, waits = broken(), NOW, []
    for _ in range(8):
        waits.append(lanes.free_at(SMALL, now) - now)
        now = lanes.free_at(SMALL, now)
        lanes.end(SMALL, now, "failed", probe=lanes.begin(SMALL))

    assert waits == [5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000]


def test_a_void_probe_is_followed_by_another() -> None:
    """A probe that was never sent says nothing: the next call is the probe."""
    lanes = broken()
    lanes.end(SMALL, NOW + 5_000, "void", probe=lanes.begin(SMALL))

    assert is_free(lanes, SMALL, NOW + 5_000)
    assert lanes.begin(SMALL)


def test_calls_from_before_the_break_close_nothing() -> None:
    """Their good news is older than the bad."""
    lanes = broken()
    lanes.end(SMALL, NOW + 1, "ok")

    assert lanes.is_open(SMALL, NOW + 1)


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "failed", "slow", "void"]), st.integers(0, 9_000)), max_size=80)
)
def test_a_lane_is_never_out_for_ever(steps: list[tuple[Ending, int]]) -> None:
    """Whatever its calls say, a call may begin again within the longest wait."""
    lanes, now = Lanes(), NOW
    for ending, later in steps:
        now = max(now + later, lanes.free_at(SMALL, now))
        assert is_free(lanes, SMALL, now)
        lanes.end(SMALL, now, ending, probe=lanes.begin(SMALL))
        assert lanes.free_at(SMALL, now) <= now + LIMITS.longest_ms
