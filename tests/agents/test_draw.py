"""The draw: a hash of who and why, equal in every process and uniform over requests."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.draw import pick, splitmix64, unit, word_of

GOLDEN = (0.34530489265709285, 0.4831011689582526, 0.19685806182780086)
IDS = [hashlib.sha256(b"%d" % n).digest()[:16] for n in range(20_000)]


def vectorised(salt: str, ids: list[bytes], attempt: int, tag: str) -> NDArray[np.float64]:
    """Return the draws of *ids*, written again in u64 arrays."""
    halves = np.frombuffer(b"".join(ids), ">u8").astype(np.uint64).reshape(-1, 2)
    constant = [np.full(len(ids), w, np.uint64) for w in (word_of(salt), attempt, word_of(tag))]
    z = np.zeros(len(ids), np.uint64)
    for word in (constant[0], halves[:, 0], halves[:, 1], constant[1], constant[2]):
        x = (z ^ word) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = x ^ (x >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def test_the_mix_is_the_published_one() -> None:
    """The generator's first outputs from seed 0 and seed 1234567 are those of its authors' C code."""
    step = 0x9E3779B97F4A7C15

    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(step) == 0x6E789E6AA1B965F4
    assert splitmix64(1234567) == 6457827717110365317


def test_the_draws_are_pinned() -> None:
    """Values computed apart from the code: whatever changes them breaks every replay."""
    zero, ones = bytes(16), bytes([255]) * 16

    assert word_of("selection") == int(hashlib.sha256(b"selection").hexdigest()[:16], 16)
    assert unit("", zero, 0, "") == GOLDEN[0]
    assert unit("salt", zero, 0, "selection") == GOLDEN[1]
    assert unit("salt", ones, 1, "selection") == GOLDEN[2]


@given(st.text(), st.lists(st.binary(min_size=16, max_size=16), min_size=1), st.integers(0, 9), st.text())
def test_the_columnar_form_draws_alike(salt: str, ids: list[bytes], attempt: int, tag: str) -> None:
    """A vectorised implementation over u64 arrays draws bit for bit the same."""
    assert vectorised(salt, ids, attempt, tag).tolist() == [unit(salt, i, attempt, tag) for i in ids]


@pytest.mark.parametrize(("salt", "attempt"), [("a", 0), ("b", 0), ("a", 1)])
def test_draws_are_uniform_over_requests(salt: str, attempt: int) -> None:
    """Over 20,000 ids the counts of 64 bins pass a chi-square test at one in a thousand."""
    draws = np.array([unit(salt, i, attempt, "selection") for i in IDS])
    counts = np.bincount((draws * 64).astype(int), minlength=64)
    expected = len(IDS) / 64
    statistic = float(((counts - expected) ** 2 / expected).sum())

    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert statistic < 103.4  # the 0.999 quantile at 63 degrees of freedom


@pytest.mark.parametrize("other", [("b", 0, "selection"), ("a", 1, "selection"), ("a", 0, "jitter")])
def test_draws_for_another_reason_are_independent(other: tuple[str, int, str]) -> None:
    """Salt, attempt and tag each give draws that are not correlated with the first ones."""
    first = np.array([unit("a", i, 0, "selection") for i in IDS])
    second = np.array([unit(other[0], i, *other[1:]) for i in IDS])

    assert abs(float(np.corrcoef(first, second)[0, 1])) < 4 / math.sqrt(len(IDS))


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1, exclude_max=True))
def test_pick_never_takes_what_has_no_chance(weights: list[float], draw: float) -> None:
    """Whatever the rounding, an alternative of probability 0 is not picked while another has some."""
    total = sum(weights)
    propensities = [w / total for w in weights] if total > 0 else [1.0] + [0.0] * (len(weights) - 1)

    assert propensities[pick(propensities, draw)] > 0


@pytest.mark.parametrize(
    ("draw", "picked"), [(0.0, 1), (0.2499, 1), (0.25, 3), (0.9999, 3), (math.nextafter(1, 0), 3)]
)
def test_pick_cumulates_in_order(draw: float, picked: int) -> None:
    """A draw falls on the first alternative whose cumulated probability exceeds it."""
    assert pick((0.0, 0.25, 0.0, 0.75, 0.0), draw) == picked
