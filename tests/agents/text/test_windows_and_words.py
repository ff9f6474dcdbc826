"""What a text is cut into: samples of long ones, words, n-grams, stems, edits, languages."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.text.bm25 import Bm25Index, Stems, ascii_of
from agents.text.edits import near, words
from agents.text.fold import lower
from agents.text.languages import UNKNOWN, detect
from agents.text.ngrams import NgramIndex
from agents.text.occurrence import count_keyword, in_sequence, units
from agents.text.window import window


def test_long_texts_are_sampled_at_both_ends_and_the_middle() -> None:
    """Up to 2,048 characters nothing is left out; beyond, three samples and the marker between."""
    assert window("x" * 2048) == "x" * 2048
    sampled = window("a" * 2000 + "b" * 2000 + "c" * 2000)

    assert (sampled.count("a" * 682), sampled.count("b" * 682), sampled.count("c" * 684)) == (1, 1, 1)
    assert sampled.count("signal") == 2


@pytest.mark.parametrize(
    ("text", "lowered"), [("ΟΔΟΣ", "οδοσ"), ("İX", "ix"), ("STRASSE ẞ", "strasse ß"), ("Kς", "kς")]
)
def test_lower_case_is_rune_by_rune(text: str, lowered: str) -> None:
    """No final sigma, and a dotted I is one letter."""
    assert lower(text) == lowered


@given(st.text(max_size=30), st.text(max_size=8), st.integers(0, 3))
def test_a_word_is_near_itself_and_what_it_becomes_by_so_many_edits(
    text: str, keyword: str, edits: int
) -> None:
    """Every word is near itself; nothing is near with a negative count."""
    for word in words(text):
        assert near(word, [word], edits)
        assert near(word + "q" * edits, [word], edits)
        assert not near(word + "q" * (edits + 1), [word], edits)
    assert not near(keyword, words(text), -1)


@pytest.mark.parametrize(
    ("text", "keyword", "count"),
    [
        ("cat cats cat", "cat", 2),
        ("cat_cat", "cat", 2),
        ("aaa", "aa", 0),
        ("错误log错误", "错误", 2),
        ("x", "", 0),
    ],
)
def test_keywords_of_structure_stand_free(text: str, keyword: str, count: int) -> None:
    """Letters and digits block, low lines and CJK do not; hits do not overlap."""
    assert count_keyword(text, keyword) == count


def test_units_and_sequences() -> None:
    """A CJK character is a word, a run of others is one; markers come one after the other."""
    assert units("two words 紧急 カナ x1") == 2 + 2 + 2 + 1
    assert in_sequence("first, then; finally", ("first", "then", "finally"))
    assert not in_sequence("then first", ("first", "then"))


def test_bm25_scores_stems_and_repetitions() -> None:
    """Stems match, case and accents do not matter, stop words never count unless kept, repeats add up."""
    stems = Stems()
    index = Bm25Index(["contracts", "the"], 1.0, stems.tokens)

    assert stems.tokens("The CONTRACTS, contract") == ["contract", "contract"]
    assert index.found(Counter(stems.tokens("contract"))) == set()
    assert index.found(Counter(stems.tokens("contract contract Contracts"))) == {0}
    assert Stems(keep_stop_words=True).tokens("the") == ["the"]
    assert ascii_of("été 紧急") == "ete Jin Ji "


def test_ngrams_forgive_typing_errors() -> None:
    """A word that shares enough of its grams is the keyword; ten hits are kept, or all."""
    index = NgramIndex(["urgent", "xyz"], arity=3, threshold=0.4, case_sensitive=False)
    many = [f"aaaa{n}" for n in range(15)]

    assert index.found("that is urgnt") == {0}
    assert index.found("nothing of the kind") == set()
    for kept, found in ((10, 10), (None, 15)):
        bounded = NgramIndex(many, arity=2, threshold=0.1, case_sensitive=True, kept=kept)
        assert len(bounded.found("aaaa")) == found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Could you explain why the pump loses pressure at night?", "en"),
        ("Könnten Sie bitte beide Rechnungen vergleichen und die Unterschiede notieren?", "de"),
        ("Сравните оба счёта и выпишите различия, это срочно.", "ru"),
        ("Чому насос уночі втрачає тиск? Кур'єр залишив її", "uk"),
        ("ทำไมปั๊มน้ำถึงแรงดันตกตอนกลางคืน", "th"),
        ("なぜ夜になるとポンプの圧力が下がるのですか", "ja"),
        ("为什么水泵晚上总是失压", "zh"),
        ("12345 ?!", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_languages(text: str, code: str) -> None:
    """By script where it decides, else by n-grams; digits and signs are of no language."""
    assert detect(text)[0] == code
