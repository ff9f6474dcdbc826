"""Every registered selector states every propensity, and draws as it states."""

import hashlib
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.draw import pick, unit
from agents.selectors import Candidate, SelectorConfig, selector
from tests.agents import samples

SELECTORS = {name: cls for name, cls in selector if cls.__module__.startswith("agents.")}
IDS = [hashlib.sha256(b"s%d" % n).digest()[:16] for n in range(20_000)]
WEIGHTS = [(1.0,), (3.0, 1.0), (0.0, 0.0), (5.0, 0.0, 2.0, 0.5)]

candidates = st.lists(
    st.builds(Candidate, st.sampled_from("abc"), st.floats(0, 1e9, allow_nan=False)), min_size=1, max_size=6
)


def test_the_expected_selectors_are_registered() -> None:
    """Nothing was added to the folder without appearing in these tests, nor lost from it."""
    assert set(SELECTORS) == {"static", "weighted"}
    assert samples.policy().hash


@pytest.mark.parametrize("name", sorted(SELECTORS))
@given(candidates)
def test_propensities_sum_to_one(name: str, listed: list[Candidate]) -> None:
    """Each candidate has a score and a probability, and the probabilities sum to one."""
    odds = SELECTORS[name]().odds(listed)

    assert len(odds.scores) == len(odds.propensities) == len(listed)
    assert all(0.0 <= p <= 1.0 for p in odds.propensities)
    assert math.isclose(sum(odds.propensities), 1.0, rel_tol=0, abs_tol=1e-12)
    assert all(math.isfinite(score) for score in odds.scores)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_stated_propensities_are_simulated_frequencies(name: str, weights: tuple[float, ...]) -> None:
    """Over 20,000 requests each candidate is drawn as often as stated, within four standard errors."""
    odds = SELECTORS[name]().odds([Candidate(f"m{i}", w) for i, w in enumerate(weights)])
    drawn = Counter(pick(odds.propensities, unit("salt", i, 0, "selection")) for i in IDS)

    for index, p in enumerate(odds.propensities):
        assert abs(drawn[index] - p * len(IDS)) <= 4 * math.sqrt(len(IDS) * p * (1 - p))


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_every_selector_says_what_it_does(name: str) -> None:
    """A selector has a docstring of its own and refuses settings that it does not know."""
    cls: type[SelectorConfig] = SELECTORS[name]

    assert cls.__doc__ is not None
    assert cls.__doc__ != SelectorConfig.__doc__
    with pytest.raises(ValidationError):
        cls.model_validate({"no_such_setting": 1})


def test_static_takes_the_first() -> None:
    """Static takes the first candidate, whatever the weights."""
    assert SELECTORS["static"]().odds([Candidate("a", 0.0), Candidate("b", 9.0)]).propensities == (1.0, 0.0)


def test_weighted_takes_shares() -> None:
    """Weighted is in proportion to the weights; where all are zero every candidate is as likely."""
    weighted = SELECTORS["weighted"]()

    assert weighted.odds([Candidate("a", 3.0), Candidate("b", 1.0)]).propensities == (0.75, 0.25)
    assert weighted.odds([Candidate("a", 0.0), Candidate("b", 0.0)]).propensities == (0.5, 0.5)
