"""What is of concern: whatever should move, does not, and is explained by no known wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.vitals import Concern, Head, Vitals, Watch, concerns

NOW = 1_000_000
HUNG = {0: Head(7)}
CALLED = {0: Head(7, NOW + 1)}


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        (Vitals(joined=True), set()),
        (Vitals(joined=True, unread=5, readable=5), {"read"}),
        (Vitals(joined=True, unread=5, readable=0, heads=CALLED), set()),
        (Vitals(joined=True, queued=3), {"agent"}),
        (Vitals(joined=True, queued=3, unread=9, readable=9), {"agent"}),
        (Vitals(joined=True, queued=3, heads=CALLED), set()),
        (Vitals(joined=True, heads=HUNG), {"partition 0"}),
        (Vitals(joined=True, heads={**CALLED, 1: Head(9)}), {"partition 1"}),
        (Vitals(joined=True, committing=True), {"commit"}),
        (Vitals(joined=False), {"group"}),
        (Vitals(joined=False, paused_by="ada"), set()),
        (Vitals(joined=True, readable=5, heads=HUNG, queued=3, paused_by="ada"), set()),
        (Vitals(joined=True, heads=HUNG, waits_for="policy"), set()),
        (Vitals(joined=True, committing=True, paused_by="ada"), {"commit"}),
        (Vitals(joined=False, heads=HUNG, committing=True, unread=None), {"broker"}),
    ],
    ids=str,
)
def test_what_waits_for_nothing_known_is_of_concern(seen: Vitals, names: set[str]) -> None:
    """Idle, paused and explained workers are fine; each way of standing still has a name of its own."""
    assert set(concerns(seen, NOW)) == names


def test_an_explanation_ends() -> None:
    """A call explains until its timeout, and not a moment longer."""
    seen = Vitals(joined=True, heads=CALLED)

    assert concerns(seen, NOW + 1).keys() == {"partition 0"}


@given(st.lists(st.tuples(st.floats(0.1, 5), st.sampled_from([None, 1, 2])), min_size=1, max_size=30))
def test_a_concern_lasts_since_it_last_moved_or_was_explained(turns: list[tuple[float, int | None]]) -> None:
    """However it comes and goes, its age is the time since its mark changed or it was no concern."""
    watch = Watch(10.0, 20.0)
    now, since, mark = 0.0, 0.0, None
    for wait, seen in turns:
        now += wait
        if seen != mark:
            since, mark = now, seen
        watch.observe({} if seen is None else {"read": Concern("x", seen)}, now)
        found = watch.findings(now)

        assert [f.since_s for f in found] == ([] if seen is None else [pytest.approx(now - since)])
        assert [f.stuck for f in found] == [f.since_s >= 10.0 for f in found]


def test_a_broker_that_is_away_has_a_bound_of_its_own() -> None:
    """An outage may last longer than a standstill."""
    watch = Watch(10.0, 20.0)
    for now in (0.0, 15.0):
        watch.observe({"broker": Concern("x"), "read": Concern("y")}, now)

    assert {f.name: f.stuck for f in watch.findings(15.0)} == {"broker": False, "read": True}
    assert watch.findings(20.0)[0].name == "read"
