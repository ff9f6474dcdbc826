"""From text to values: YAML 1.1 as yaml.v2 has it, substitution, places, and limits."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import ConfigError
from agents.loading.scalars import resolve, written
from agents.loading.substitution import substitute
from agents.loading.tree import Tree, read

ENVIRONMENT = {"HOME": "/root", "EMPTY": "", "A_1": "one"}


def tree(text: str) -> Tree:
    """Return *text* as it is read in a file called f."""
    return read(text, "f", ENVIRONMENT)


@pytest.mark.parametrize(
    ("text", "value", "as_text"),
    [
        ("n", False, "false"),
        ("No", False, "false"),
        ("on", True, "true"),
        ("nb", "nb", "nb"),
        ("010", 8, "8"),
        ("08", 8.0, "8"),
        ("0x1F", 31, "31"),
        ("0b11", 3, "3"),
        ("0o17", 15, "15"),
        ("-0x1f", -31, "-31"),
        ("1_000", 1000, "1000"),
        ("1.10", 1.1, "1.1"),
        ("1e6", 1e6, "1e+06"),
        ("1e-5", 1e-5, "1e-05"),
        (".5", 0.5, "0.5"),
        ("123456.5", 123456.5, "123456.5"),
        ("1.", 1.0, "1"),
        ("-", "-", "-"),
        ("1e400", "1e400", "1e400"),
        ("18446744073709551616", 18446744073709551616.0, "1.8446744073709552e+19"),
        ("2001-1-2", "2001-01-02T00:00:00Z", "2001-01-02T00:00:00Z"),
        ("2001-99-99", "2001-99-99", "2001-99-99"),
        ("12:30", "12:30", "12:30"),
    ],
)
def test_plain_scalars_resolve_as_in_yaml_1_1(text: str, value: Any, as_text: str) -> None:
    """A plain scalar is the value that yaml.v2 makes of it, and is written anew where text is wanted."""
    found = resolve(text, plain=True, tag=None)

    assert (type(found), found) == (type(value), value)
    assert written(value) == as_text
    assert resolve(text, plain=False, tag=None) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_written_reads_back(number: float) -> None:
    """No digit is lost between a number and its text."""
    assert float(written(number)) == number


@pytest.mark.parametrize(
    ("text", "wide", "explicit"),
    [
        ("plain", "plain", "plain"),
        ("${HOME}", "/root", "/root"),
        ("a$HOME", "a/root", "a$HOME"),
        ("${GONE}", "", ""),
        ("${GONE:-d}", "d", "d"),
        ("${EMPTY:-d}", "d", "d"),
        ("${EMPTY-d}", "", ""),
        ("${GONE-d}", "d", "d"),
        ("$$", "$", "$"),
        ("x$$", "x$", "x$"),
        ("x$", "x$", "x$"),
        ("^a${2}", "^a", "^a${2}"),
        ("$A_1.", "one.", "$A_1."),
        ("${", "${", "${"),
        ("${}", "", "${}"),
        (r"\$\d", r"\$\d", r"\$\d"),
    ],
)
def test_references_are_replaced(text: str, wide: str, explicit: str) -> None:
    """Every form of the original; with `explicit` only ${NAME} and its defaults are references."""
    assert substitute(text, ENVIRONMENT).text == wide
    assert substitute(text, ENVIRONMENT, explicit=True).text == explicit


def test_a_variable_that_is_not_set_is_told() -> None:
    """An unset variable without a default is "", and named; asked for explicitly it is an error."""
    assert substitute("$GONE ${GONE2} ${G:-x} $EMPTY", ENVIRONMENT).unset == ("GONE", "GONE2")
    with pytest.raises(ConfigError, match=r"^f:2:4: a: .*GONE"):
        tree("substitution: explicit\na: ${GONE}")


def test_the_last_of_equal_keys_and_the_first_document_count() -> None:
    """Both are noted, with their places."""
    found = tree("a: {b: 1, b: 2}\n---\na: [")

    assert found.value == {"a": {"b": 2}}
    assert [(note.kind, found.place(note.path)) for note in found.notes] == [
        ("document", (2, 1)),
        ("duplicate", (1, 11)),
    ]


def test_keys_that_are_no_text_are_dropped_below_the_top() -> None:
    """`on` is a boolean as a key too; at the top it stays text."""
    assert tree("on: 1\nb: {on: 1, 2: 3, c: 4}").value == {"on": 1, "b": {"c": 4}}


def test_merge_keys_overwrite_what_stands_before_them() -> None:
    """As yaml.v2 has it: in the order of the file, and the first of several sources wins."""
    text = "x: &x {a: 1, b: 2}\ny: &y {a: 3}\nz: {a: 0, <<: [*x, *y], b: 9}"

    assert tree(text).value["z"] == {"a": 1, "b": 9}
    with pytest.raises(ConfigError, match="merge"):
        tree("z: {<<: 1}")


def test_every_value_has_its_place() -> None:
    """Line and column are those of the key of a scalar, of the value of a collection, or of the item."""
    assert tree("a: 1").place(("a",)) == (1, 1)
    found = tree("a:\n  - x: 1\n    z: [p, q]\n")

    assert found.place(("a", 0, "z")) == (3, 8)
    assert found.place(("a", 0, "z", 1)) == (3, 12)
    assert found.place(("a", 0, "gone", 7)) == (2, 5)
    assert found.at(("a",)) == "f:2:3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: b: c", "f:1:5"),
        ("a: [1,\n  b: {", "f:"),
        ("\t", "f:1:1"),
        ("a: *b", "unknown anchor"),
        ("&a [*a]", "contains itself"),
        ("a: !!int x", "no int"),
        ("{[1]: 2}", "a key is a text"),
        ("a\0b: 1", "f:1:1"),
        ("[" * 5000, "nested deeper"),
        ("- " * 5000, "nested deeper"),
        ("x" * 5_000_000, "longer than"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, told: str) -> None:
    """Whatever the library makes of it, the error is ours and names file, line and column."""
    with pytest.raises(ConfigError, match=r"^f:\d+:\d+: ") as caught:
        tree(text)
    assert told in str(caught.value)


def test_an_alias_bomb_costs_nothing() -> None:
    """Ten levels of ten aliases are refused before they are multiplied."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    began = time.process_time()
    with pytest.raises(ConfigError, match="too large"):
        tree("\n".join(lines))
    assert time.process_time() - began < 5
