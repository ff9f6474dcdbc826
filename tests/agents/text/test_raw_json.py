"""Where values stand in the bytes of JSON: to the byte, however it was written."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.content import Content
from agents.text.raw_json import RawDocument, compact

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """Iterate over (path, value) of everything inside *value*."""
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*path, key), inner
        yield from paths(inner, (*path, key))


@given(
    st.dictionaries(st.text(), VALUES, max_size=5),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from(["ascii", "utf-8"]),
)
def test_every_value_is_found_where_it_stands(
    document: dict[str, Any], indent: int | None, spelled: str
) -> None:
    """The bytes of each path are that value's and nothing around it; what is not there has size 0."""
    body = json.dumps(document, indent=indent, ensure_ascii=spelled == "ascii").encode(
        "utf-8", "surrogatepass"
    )
    raw = RawDocument(body)

    for path, value in paths(document):
        text = raw.text(path)
        assert json.loads(text) == value
        assert text == text.strip()
        assert raw.size(path) == len(text)
    assert raw.size(("no such key at all", 3)) == 0


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([None, 2]))
def test_compact_json_says_the_same_in_fewer_bytes(document: dict[str, Any], indent: int | None) -> None:
    """Only the white space between tokens goes."""
    body = json.dumps(document, indent=indent).encode()

    assert compact(body) == json.dumps(document, separators=(",", ":")).encode()


def test_the_floor_counts_what_was_sent() -> None:
    """White space in tools, digits beyond a float and escapes in arguments count; text counts as text."""
    tools = '[ {"max": 90071992547409931000000} ,{}]'
    call = (
        '{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\\"q\\": \\"\\u00e9\\"}"}}'
    )
    body = (
        '{"messages": [{"role": "user", "content": "\\u00e9"}, {"role": "assistant", "tool_calls": ['
        + call
        + "]}"
        ', {"role": "tool", "content": "ok", "tool_call_id": "c"}], "tools": ' + tools + ', "max_tokens": 7}'
    )
    text = len("user") + 2 + len("assistant") + len("c") + len("function") + len("f") + len("tool") + len("c")
    structured = len('{"max": 90071992547409931000000}') + len("{}") + len('"ok"')
    structured += len('"{\\"q\\": \\"\\u00e9\\"}"')
    framing = 3 * 4 + 8 + 8 + 2 * 8

    assert Content(body.encode()).token_floor == -(-text // 4) + structured + framing + 7


def test_a_lone_surrogate_is_read_as_the_replacement_character() -> None:
    """What strict parsers refuse the original reads: three bytes of U+FFFD."""
    content = Content(b'{"messages": [{"role": "user", "content": "a\\ud800b"}]}')

    assert content.text == "a\ufffdb"
    assert content.token_floor == -(-(4 + 5) // 4) + 4
