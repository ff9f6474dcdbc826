"""Suspects after a crash: who is blamed, and who is not."""

import pytest

from streams.suspects import own_text, suspects_of


def test_a_mark_that_was_not_taken_back_is_a_crash() -> None:
    """What lay behind the commit runs alone, and what ran alone is blamed once more."""
    found = suspects_of('{"open": "w1", "alone": 7, "crashes": 1, "back": 3}', 5, 10)

    assert (found.until, found.crashes_of(7), found.crashes_of(6)) == (15, 2, 0)
    assert own_text('{"open": "w1", "alone": 7, "crashes": 1, "back": 3}') == {"back": 3}


def test_a_clean_end_blames_nobody_but_forgets_nothing() -> None:
    """What ran alone when the worker was stopped keeps its count, and runs alone again."""
    found = suspects_of('{"alone": 7, "crashes": 1}', 5, 10)

    assert (found.until, found.crashes_of(7)) == (8, 1)


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"open": 1, "alone": "x"}', '{"alone": 3, "crashes": 2}']
)
def test_foreign_text_beside_a_commit_blames_nobody(text: str) -> None:
    """Whatever stands there, a record that lies before the commit or has no count is not blamed."""
    assert suspects_of(text, 4, 10).crashes_of(4) == 0
