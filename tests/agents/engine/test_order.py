"""Scores are computed after what they read, circles are refused, and gaps between bands are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.engine.order import gaps, ordered, overlaps
from agents.engine.reading import ruleset_of
from agents.engine.tree import Band, Bounds, Mapping, Score, Term
from agents.errors import ConfigError


def reads(name: str, *needed: str) -> Score:
    """Return a score over other scores."""
    return Score(name, tuple(Term(other, "score", 1.0) for other in needed))


def test_a_score_is_computed_after_those_that_it_reads() -> None:
    """Declared first, computed last."""
    found = ordered([reads("a", "b"), reads("b", "c"), reads("c")], [])

    assert [score.name for score in found] == ["c", "b", "a"]


def test_a_score_that_reads_a_band_is_computed_after_its_source() -> None:
    """A projection of another score is a dependency too."""
    mapping = Mapping("m", "b", (Band("high", Bounds(gt=0.5)),))
    reader = Score("a", (Term("projection:high", "confidence", 1.0),))

    assert [score.name for score in ordered([reader, reads("b")], [mapping])] == ["b", "a"]


def test_a_circle_is_refused_and_named() -> None:
    """The message shows the way round."""
    with pytest.raises(ConfigError, match="a -> b -> a is a circle"):
        ordered([reads("a", "b"), reads("b", "a")], [])


def test_a_policy_whose_scores_form_a_circle_is_refused() -> None:
    """The circle is found when the tree is built from the configuration."""
    term = {"type": "projection", "name": "s", "value_source": "score", "weight": 1}
    scores = [{"name": "s", "method": "weighted_sum", "inputs": [term]}]
    mappings = [{"name": "m", "source": "s", "outputs": [{"name": "o", "gt": 0}]}]

    with pytest.raises(ConfigError, match="s -> s is a circle"):
        ruleset_of({"projections": {"scores": scores, "mappings": mappings}})


def test_what_no_band_covers_is_a_gap() -> None:
    """An open and a closed end leave a point, and outer ends reach to infinity."""
    bands = [Band("low", Bounds(gt=0.0, lt=0.5)), Band("high", Bounds(gt=0.5, lte=1.0))]

    assert [str(gap) for gap in gaps(bands)] == ["(-inf, 0]", "[0.5, 0.5]", "(1, inf)"]


def test_what_two_bands_cover_is_an_overlap() -> None:
    """A point that both ends include is one."""
    bands = [Band("low", Bounds(lte=0.5)), Band("high", Bounds(gte=0.5))]

    assert gaps(bands) == ()
    assert [str(both) for both in overlaps(bands)] == ["[0.5, 0.5]"]


_ENDS = st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@given(
    st.lists(
        st.builds(
            Bounds, gt=st.none() | _ENDS, gte=st.none() | _ENDS, lt=st.none() | _ENDS, lte=st.none() | _ENDS
        ),
        max_size=4,
    ),
    st.sampled_from([-9.0, -1.0, -0.3, 0.0, 0.2, 0.5, 0.7, 1.0, 4.0]),
)
def test_a_number_is_in_a_gap_exactly_if_no_band_holds_it(shapes: list[Bounds], number: float) -> None:
    """Gaps and bands together are all numbers, and share none."""
    bands = [Band(str(i), bounds) for i, bounds in enumerate(shapes)]
    inside = any(
        (gap.low < number or (gap.low_included and gap.low == number))
        and (number < gap.high or (gap.high_included and gap.high == number))
        for gap in gaps(bands)
    )

    assert inside != any(bounds.holds(number) for bounds in shapes)
