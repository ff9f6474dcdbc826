"""How long a dead process waits for its next life."""

from hypothesis import given
from hypothesis import strategies as st

from infra.local.backoff import LONGEST, QUICK, Backoff

lives = st.lists(st.floats(min_value=0, max_value=100), max_size=60)


def test_the_first_quick_death_is_forgiven() -> None:
    """One crash right after the start is answered at once."""
    assert Backoff().after(0.1) == 0.0


def test_quick_deaths_in_a_row_wait_twice_as_long_each_time() -> None:
    """A process that cannot live does not keep the machine busy with starting it."""
    backoff = Backoff()

    assert [backoff.after(0.1) for _ in range(5)] == [0.0, 0.5, 1.0, 2.0, 4.0]


@given(lives)
def test_no_wait_is_negative_or_longer_than_the_longest(seconds: list[float]) -> None:
    """Whatever the lives were, the wait stays within its bounds."""
    backoff = Backoff()

    assert all(0.0 <= backoff.after(life) <= LONGEST for life in seconds)


@given(lives)
def test_a_long_life_forgives_everything_before_it(seconds: list[float]) -> None:
    """After a life of ten seconds the next death is answered at once."""
    backoff = Backoff()
    for life in seconds:
        backoff.after(life)

    assert backoff.after(QUICK) == 0.0
    assert backoff.after(0.1) == 0.0
