"""Draws: repeatable, distributed as the profile says, and honest about being simulated."""

from collections import Counter
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.simulated_llm.model import HANG, UnknownModelError, draw
from infra.simulated_llm.profile import parse

FAULTY = parse("""
providers:
  p:
    models:
      m:
        latency: {ttft_median_ms: 100, ttft_sigma: 0.5, per_token_ms: 2}
        length: {median: 50, sigma: 0.5, minimum: 5, maximum: 90}
        faults: {error: 0.2, rate_limit: 0.1, hang: 0.05, error_statuses: [500, 503]}
        retry_after_s: 3
""")
SURE = parse("providers: {p: {models: {m: {}}}}")
MANY = 4000


@given(st.integers(), st.text(), st.integers(0, 5))
def test_equal_calls_have_equal_outcomes(seed: int, key: str, nth: int) -> None:
    """The outcome depends on nothing but the arguments."""
    key = key.encode(errors="replace").decode()

    assert draw(FAULTY, seed, "p", "m", key, nth) == draw(FAULTY, seed, "p", "m", key, nth)


def test_every_part_of_the_identity_counts() -> None:
    """Another seed, key or repetition is another draw."""
    draws = [
        draw(FAULTY, 1, "p", "m", "k", 0),
        draw(FAULTY, 2, "p", "m", "k", 0),
        draw(FAULTY, 1, "p", "m", "l", 0),
        draw(FAULTY, 1, "p", "m", "k", 1),
    ]

    assert len({outcome.fingerprint for outcome in draws}) == 4


def test_faults_come_as_often_as_the_profile_says() -> None:
    """Shares of errors, rate limits and hangs are within three standard errors."""
    shares = Counter(draw(FAULTY, 0, "p", "m", str(i), 0).status for i in range(MANY))

    assert shares[500] + shares[503] == pytest.approx(0.2 * MANY, abs=76)
    assert shares[500] == pytest.approx(shares[503], abs=85)
    assert shares[429] == pytest.approx(0.1 * MANY, abs=57)
    assert shares[HANG] == pytest.approx(0.05 * MANY, abs=42)


def test_latency_and_length_have_the_medians_of_the_profile() -> None:
    """Time to first token and tokens are lognormal around their medians; tokens stay in bounds."""
    answers = [draw(FAULTY, 0, "p", "m", str(i), 0, spared=True) for i in range(MANY)]

    assert median(a.ttft_s for a in answers) == pytest.approx(0.1, rel=0.05)
    assert median(a.completion_tokens for a in answers) == pytest.approx(50, abs=3)
    assert {5 <= a.completion_tokens <= 90 for a in answers} == {True}
    assert all(a.latency_s == pytest.approx(a.ttft_s + 0.002 * (a.completion_tokens - 1)) for a in answers)


def test_a_profile_without_latency_answers_at_once() -> None:
    """Load tests can have a provider that takes no time."""
    outcome = draw(SURE, 0, "p", "m", "k", 0)

    assert (outcome.status, outcome.latency_s, outcome.ttft_s) == (200, 0.0, 0.0)


@given(st.text(alphabet="abc", max_size=5), st.integers(1, 200))
def test_a_token_limit_only_shortens(key: str, limit: int) -> None:
    """With a limit the status and first-token time stay, and the length is the smaller of the two."""
    free = draw(FAULTY, 7, "p", "m", key, 0, spared=True)
    cut = draw(FAULTY, 7, "p", "m", key, 0, spared=True, max_tokens=limit)

    assert cut.completion_tokens == min(free.completion_tokens, limit)
    assert cut.finish_reason == ("length" if limit < free.completion_tokens else "stop")
    assert cut.ttft_s == free.ttft_s


def test_answers_say_that_they_are_simulated_and_have_the_length_that_they_claim() -> None:
    """The text starts with the mark; its words are as many as the tokens that are billed."""
    outcome = draw(SURE, 0, "p", "m", "k", 0)
    mark, _, words = outcome.text.partition("] ")

    assert mark == f"[simulated p/m {outcome.fingerprint[:8]}"
    assert len(words.split()) == outcome.completion_tokens == 64


@pytest.mark.parametrize(("provider", "model"), [("q", "m"), ("p", "n")])
def test_an_unknown_model_cannot_be_drawn(provider: str, model: str) -> None:
    """A name that the profile lacks is an error."""
    with pytest.raises(UnknownModelError, match="the profile has no model"):
        draw(SURE, 0, provider, model, "k", 0)


def test_outcomes_do_not_change_between_versions() -> None:
    """A seed written down today draws the same tomorrow."""
    drawn = [draw(FAULTY, 42, "p", "m", f"job-{i}", 0) for i in range(4)]

    assert [(o.status, o.completion_tokens, o.fingerprint[:8]) for o in drawn] == [
        (200, 90, "316ea84f"),
        (200, 85, "e772c633"),
        (200, 15, "1711d77a"),
        (200, 90, "a1ed6b7f"),
    ]
