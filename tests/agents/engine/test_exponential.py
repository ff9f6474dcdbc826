"""One exponential for one float and for arrays: the same bits, close to the true value."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.engine.exponential import exp, exps

EVERY = st.floats(min_value=-800.0, max_value=800.0) | st.sampled_from(
    [0.0, -0.0, math.inf, -math.inf, math.nan, 709.782712893384, -745.1332191019412, -708.4, 1e-320]
)


@given(st.lists(EVERY, min_size=1, max_size=40))
def test_an_array_gets_the_bits_that_each_float_gets(numbers: list[float]) -> None:
    """The columnar evaluator cannot differ from the scalar one by its exponential."""
    together = exps(np.array(numbers))

    assert [float(x).hex() for x in together] == [exp(x).hex() for x in numbers]


@given(st.floats(min_value=-700.0, max_value=700.0))
def test_it_is_within_two_units_in_the_last_place(number: float) -> None:
    """Rounded sums and products lose no more than that against the C library."""
    true = math.exp(number)

    assert abs(exp(number) - true) <= 2 * math.ulp(true)


def test_zero_gives_exactly_one() -> None:
    """The best of a softmax is 1 before it is divided."""
    assert exp(0.0) == 1.0
