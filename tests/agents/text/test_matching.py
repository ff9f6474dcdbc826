"""Many words and patterns in one pass: the same as one search each, and nothing runs away."""

import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text.matching import (
    Haystack,
    Literal,
    Matcher,
    PatternError,
    compiled,
    is_bounded,
    unicode_bounded,
)

WORDS = (
    "urgent",
    "C++",
    ".net",
    "green gate",
    "a_b",
    "été",
    "сервер",
    "紧急",
    "API接口",
    "?!",
    "",
    "risk",
    "ΟΔΟΣ",
)
SPICE = ("ſ", "\u212a", "K", "İ", "ς", "é", "x", "_", " ", "-", "\n", "\x00", "🙂", "急")
TEXTS = st.lists(st.sampled_from([*WORDS, *(w.upper() for w in WORDS), *SPICE, "urgently"])).map("".join)
LITERALS = st.builds(
    Literal,
    st.sampled_from([*WORDS, "ri\u017fk", "Kelvin", "t"]),
    bounded=st.booleans(),
    folded=st.booleans(),
)
PATTERNS = st.sampled_from([r"\bgate\b", r"(?i)[a-z]+\+", r"^\s*u", r"\p{Han}{2}", r"(?:)", r"t\z"])


def hay(text: str) -> Haystack:
    """Return *text* as matchers look at it."""
    return Haystack(text, text.encode())


@settings(max_examples=300)
@given(st.lists(LITERALS, max_size=8), st.lists(PATTERNS, max_size=3), TEXTS)
def test_one_pass_finds_what_single_searches_find(
    literals: list[Literal], patterns: list[str], text: str
) -> None:
    """Whatever is looked for together is found exactly where RE2 finds it alone."""
    single = [literal.pattern for literal in literals] + patterns
    expected = {n for n, pattern in enumerate(single) if re2.search(pattern, text) is not None}

    assert Matcher(literals, patterns).found(hay(text)) == expected


def test_letters_that_fold_to_ascii_are_not_missed() -> None:
    """A long s inside a word equals s; at its end it is no word character, so there is no boundary."""
    matcher = Matcher([Literal("risk", bounded=True)])

    assert matcher.found(hay("a ri\u017fk")) == {0}
    assert matcher.found(hay("a ris\u212a")) == set()


@pytest.mark.parametrize(
    ("literal", "bounded"),
    [
        ("urgent", True),
        ("été", True),
        ("C++", True),
        ("a_b", True),
        ("紧急", False),
        ("?!", False),
        ("Ⅳ", False),
    ],
)
def test_what_has_a_word_and_no_han_is_bounded(literal: str, *, bounded: bool) -> None:
    """Letters, digits and low lines make a word; a Han character undoes it."""
    assert is_bounded(literal) is bounded


@pytest.mark.parametrize(
    ("literal", "text", "found"),
    [
        ("сервер", "наш сервер!", True),
        ("сервер", "сервера", False),
        ("C++", "I write C++ here", True),
        ("C++", "ABC++", False),
        ("été", "un ÉTÉ", True),
        ("été", "pété", False),
        (".net", "use .NET", True),
    ],
)
def test_unicode_boundaries_revive_dead_keywords(literal: str, text: str, *, found: bool) -> None:
    """Ours: a word may not touch letters of any script, and a sign may touch anything."""
    assert (re2.search(unicode_bounded(literal, folded=True), text) is not None) is found


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=x)", r"\C", "x{1001}", r"\\\C"])
def test_what_the_original_cannot_compile_is_refused(pattern: str) -> None:
    """Look-around, back-references, single bytes and huge counts are no patterns; an escaped backslash is."""
    with pytest.raises(PatternError):
        compiled(pattern)
    assert compiled(r"\\C").search(r"a\C")


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(x+x+)+y", r"(?:a|aa)*b", r"(a*)*c", r"([a-z]+)*\d{3}!"])
def test_nested_quantifiers_do_not_run_away(pattern: str) -> None:
    """Ten megabytes take seconds of CPU at most: RE2 is linear where others explode at thirty letters."""
    text = hay("a" * 10_000_000 + "\n")
    matcher = Matcher([], [pattern, "never"])
    began = time.process_time()
    matcher.found(text)

    assert time.process_time() - began < 20


def test_a_set_that_outgrows_its_memory_is_searched_one_by_one() -> None:
    """Patterns whose automaton explodes still answer rightly."""
    patterns = [rf"a.{{{n},{n + 40}}}b{n}c" for n in range(60)]
    matcher = Matcher([], patterns)
    text = hay("a" + "ab" * 30_000 + "a" + "z" * 45 + "b7c")

    assert matcher.found(text) == {n for n, pattern in enumerate(patterns) if re2.search(pattern, text.text)}
