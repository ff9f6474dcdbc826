"""The token bucket: a burst at once, then a rate."""

from hypothesis import given
from hypothesis import strategies as st

from infra.simulated_llm.bucket import Bucket


def test_a_burst_passes_and_the_next_call_is_told_how_long_to_wait() -> None:
    """Three at once pass; the fourth waits for a token, which takes half a second at two a second."""
    bucket = Bucket(rps=2, burst=3)

    assert [bucket.take(10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(10.5) == 0.0


@given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 5))
def test_no_more_pass_than_the_burst_and_the_rate_allow(gaps: list[float], burst: int) -> None:
    """Over any time at most burst + rate x time calls pass."""
    bucket, now, passed = Bucket(rps=3, burst=burst), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now) == 0.0

    assert passed <= burst + 3 * now + 1e-6


def test_a_clock_that_steps_back_does_no_harm() -> None:
    """Time that goes backwards gives no tokens and takes none."""
    bucket = Bucket(rps=1, burst=1)

    assert bucket.take(100.0) == 0.0
    assert bucket.take(50.0) == 1.0
