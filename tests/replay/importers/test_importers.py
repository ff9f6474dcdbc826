"""Importers read what they document, tell the formats apart, and never quote a prompt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay.importers
from agents.errors import ConfigError, InvalidRecord
from replay.imported import Call, ImportedLog
from replay.importers import Entry, LeftOut, importer
from tests.architecture.repository import ROOT
from tests.contracts.documents import document

importer.load(replay.importers)
SECRET = "the launch code is mauve"
MESSAGES = [{"role": "user", "content": SECRET}]
PAYLOAD: dict[str, Any] = {
    "id": "call-1",
    "call_type": "acompletion",
    "model": "openai/gpt-4o",
    "model_group": "smart",
    "messages": MESSAGES,
    "response_cost": 0.25,
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "status": "success",
    "cache_hit": None,
    "metadata": {
        "requester_metadata": {"tier": "gold", "depth": 3},
        "user_api_key_user_id": "jo",
        "user_api_key_team_alias": "law",
    },
    "model_parameters": {"tools": [{"type": "function"}], "stream": True},
}
SPEND: dict[str, Any] = {
    "request_id": "call-2",
    "call_type": "completion",
    "model": "gpt-4o",
    "model_group": "",
    "spend": "0.5",
    "prompt_tokens": "7",
    "completion_tokens": 8,
    "cache_hit": "False",
    "messages": "{}",
    "proxy_server_request": json.dumps({"messages": MESSAGES, "metadata": {"tier": "free"}}),
}
INPUT = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": MESSAGES},
}
ANSWER = {"model": "m-2", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
OUTPUT = {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": ANSWER}, "error": None}
STORED = {"id": "c", "object": "chat.completion", **ANSWER, "messages": {"object": "list", "data": MESSAGES}}
PAIR = {"request": INPUT["body"], "response": ANSWER}


def read(name: str, line: dict[str, Any]) -> Entry:
    """Return what the importer *name* makes of *line*."""
    return importer[name]().read(line)


@pytest.mark.parametrize("name", [name for name, _ in importer])
def test_every_importer_documents_the_fields_that_it_reads(name: str) -> None:
    """The table of docs/whatif.md is the importer's own, word for word."""
    title = {"litellm": "LiteLLM", "openai": "OpenAI"}.get(name, name)
    section = document("docs/whatif.md").section(title)

    for field, meaning in importer[name].fields.items():
        assert f"| `{field}` | {meaning} |" in section
    assert set(document("docs/whatif.md").first_column(title)) == set(importer[name].fields)


@pytest.mark.parametrize("name", [name for name, _ in importer])
def test_every_importer_has_an_invented_example(name: str) -> None:
    """What is shipped as an example of a format is read as that format alone, almost all of it."""
    paths = sorted((ROOT / "infra" / "whatif").glob(f"{name}*.jsonl"))
    log = ImportedLog(paths)
    calls = list(log.calls())

    assert paths
    assert calls
    assert set(log.reading.formats) == {name}
    assert sum(len(places) for places in log.reading.malformed.values()) <= 1


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (PAYLOAD, "litellm"),
        ({"standard_logging_object": PAYLOAD}, "litellm"),
        (SPEND, "litellm"),
        (INPUT, "openai"),
        (OUTPUT, "openai"),
        (STORED, "openai"),
        (PAIR, "openai"),
        ({"model": "m", "messages": MESSAGES}, "openai"),
    ],
)
def test_exactly_one_importer_recognises_a_line(line: dict[str, Any], name: str) -> None:
    """Formats do not overlap, so the order in which they are tried does not matter."""
    assert [found for found, cls in importer if cls().recognises(line)] == [name]


def test_a_payload_of_litellm_is_read_as_documented() -> None:
    """Prompt, tools, metadata, who asks, tokens and cost."""
    entry = read("litellm", PAYLOAD)
    assert entry.asked is not None
    assert entry.answered is not None

    assert entry.asked.model == "smart"
    assert entry.asked.body == {
        "messages": MESSAGES,
        "metadata": {"tier": "gold"},
        "tools": [{"type": "function"}],
    }
    assert (entry.asked.user, entry.asked.groups) == ("jo", "law")
    assert (entry.answered.model, entry.answered.paid_usd) == ("openai/gpt-4o", 0.25)
    assert (entry.answered.prompt_tokens, entry.answered.completion_tokens) == (10, 20)


def test_a_row_of_spend_logs_has_its_prompt_in_the_proxys_request() -> None:
    """The database keeps numbers as numbers or as text, and the prompt as JSON text."""
    entry = read("litellm", SPEND)
    assert entry.asked is not None
    assert entry.answered is not None

    assert entry.asked.body == {"messages": MESSAGES, "metadata": {"tier": "free"}}
    assert (entry.answered.paid_usd, entry.answered.prompt_tokens) == (0.5, 7)


@pytest.mark.parametrize(
    ("change", "state", "paid"),
    [
        ({"status": "failure"}, "failed", None),
        ({"cache_hit": True}, "cached", 0.0),
        ({"cache_hit": "True"}, "cached", 0.0),
        ({"response_cost": 0.0, "response_cost_failure_debug_info": {"error_str": "x"}}, "answered", None),
        ({"response_cost": None}, "answered", None),
    ],
)
def test_what_was_not_paid_is_not_taken_for_paid(
    change: dict[str, Any], state: str, paid: float | None
) -> None:
    """A failed call, a hit of the cache, and a cost that LiteLLM could not tell are three things."""
    answered = read("litellm", {**PAYLOAD, **change}).answered

    assert answered is not None
    assert (answered.state, answered.paid_usd) == (state, paid)


def test_a_prompt_that_was_cut_is_marked() -> None:
    """LiteLLM's database keeps the ends of long texts only."""
    message = {"role": "user", "content": [{"type": "text", "text": "abc... (litellm_truncated 9 chars)"}]}
    asked = read("litellm", {**PAYLOAD, "messages": [message]}).asked

    assert asked is not None
    assert asked.cut


@pytest.mark.parametrize(
    ("name", "line", "word"),
    [
        (
            "litellm",
            {**PAYLOAD, "messages": [{"role": "user", "content": "redacted-by-litellm"}]},
            "redacted",
        ),
        ("litellm", {**PAYLOAD, "messages": None}, "no messages"),
        ("litellm", {**PAYLOAD, "messages": [SECRET]}, "no object"),
        ("litellm", {**PAYLOAD, "messages": "[" + SECRET}, "not valid JSON"),
        ("litellm", {**PAYLOAD, "model": 3}, "no model"),
        ("openai", {**INPUT, "custom_id": 5}, "custom_id"),
        ("openai", {"request": {}, "response": ANSWER}, "no messages"),
        ("openai", {"messages": [], "model": SECRET}, "no messages"),
    ],
)
def test_a_malformed_line_is_refused_with_a_reason_that_quotes_nothing(
    name: str, line: dict[str, Any], word: str
) -> None:
    """The reason says what is wrong; the prompt stays where it is."""
    with pytest.raises(InvalidRecord, match=word) as refused:
        read(name, line)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("litellm", {**PAYLOAD, "call_type": "aembedding"}),
        ("litellm", {**PAYLOAD, "call_type": SECRET}),
        ("openai", {**INPUT, "url": "/v1/embeddings"}),
    ],
)
def test_other_calls_are_left_out_and_are_no_errors(name: str, line: dict[str, Any]) -> None:
    """Embeddings and images are no chat completions; whatever the kind is called is not repeated blindly."""
    with pytest.raises(LeftOut) as left:
        read(name, line)

    assert SECRET not in str(left.value)


def written(folder: Path, *files: list[Any]) -> list[Path]:
    """Write lines to files of *folder* and return their paths."""
    paths = []
    for number, lines in enumerate(files):
        path = folder / f"{number}.jsonl"
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
        paths.append(path)
    return paths


def places(calls: list[Call]) -> list[tuple[int, int]]:
    """Return file and line of each of *calls*."""
    return [(call.place.file, call.place.line) for call in calls]


@pytest.mark.parametrize("flipped", [False, True])
def test_halves_of_a_batch_are_joined_whichever_file_comes_first(tmp_path: Path, *, flipped: bool) -> None:
    """A call has the place of its request; what was paid is reckoned at the batch's share."""
    files = ([INPUT, {**INPUT, "custom_id": "z"}], [OUTPUT])
    paths = written(tmp_path, *files)
    calls = list(ImportedLog(paths[::-1] if flipped else paths).calls())

    assert places(calls) == [(int(flipped), 1), (int(flipped), 2)]
    assert calls[0].answered is not None
    assert (calls[0].answered.model, calls[0].answered.share) == ("m-2", 0.5)
    assert calls[1].answered is None


def test_an_answer_without_a_request_and_a_second_of_a_name_are_malformed(tmp_path: Path) -> None:
    """Nothing is guessed: halves that have no other are named by their line."""
    log = ImportedLog(written(tmp_path, [INPUT, INPUT], [{**OUTPUT, "custom_id": "b"}]))
    calls = list(log.calls())
    reasons = {why: [(p.file, p.line) for p in found] for why, found in log.reading.malformed.items()}

    assert places(calls) == [(0, 1)]
    assert reasons == {
        "a request with the name of an earlier one": [(0, 2)],
        "an answer whose request is in none of the files": [(1, 1)],
    }


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (INPUT, "a request with the name of an earlier one"),
        (OUTPUT, "an answer with the name of an earlier one"),
    ],
)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_half_that_comes_after_both_were_joined_is_malformed(
    tmp_path: Path, later: dict[str, Any], why: str, *, flipped: bool
) -> None:
    """A batch that was exported twice, or a name that was used again, makes no second call."""
    halves = [OUTPUT, INPUT] if flipped else [INPUT, OUTPUT]
    log = ImportedLog(written(tmp_path, [*halves, later]))
    (call,) = log.calls()

    assert call.answered is not None
    assert {reason: [p.line for p in found] for reason, found in log.reading.malformed.items()} == {why: [3]}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("litellm", {**PAYLOAD, "startTime": 1772496322.5}),
        ("litellm", {**SPEND, "startTime": "2026-03-03T00:05:22.5Z"}),
        ("litellm", {**SPEND, "startTime": "2026-03-03 00:05:22.5"}),
        ("litellm", {**SPEND, "startTime": "2026-03-03T01:05:22.5+01:00"}),
        ("openai", {**OUTPUT, "response": {"status_code": 200, "body": {**ANSWER, "created": 1772496322.5}}}),
        ("openai", {**STORED, "created": 1772496322.5}),
        ("openai", {"request": INPUT["body"], "response": {**ANSWER, "created": 1772496322.5}}),
    ],
)
def test_a_call_has_the_time_that_its_line_tells(name: str, line: dict[str, Any]) -> None:
    """Seconds since 1970 and ISO text are the same moment; text without a zone is UTC."""
    answered = read(name, line).answered

    assert answered is not None
    assert answered.at == datetime(2026, 3, 3, 0, 5, 22, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("told", [None, "", "yesterday", 1e300, True, {}, SECRET])
def test_a_time_that_is_none_is_not_known(told: object) -> None:
    """Whatever stands there, the call itself is read."""
    answered = read("litellm", {**PAYLOAD, "startTime": told}).answered

    assert answered is not None
    assert answered.at is None


def test_a_failed_batch_line_is_a_failed_call(tmp_path: Path) -> None:
    """A status other than 200 and an error are both failures."""
    refused = {"custom_id": "a", "response": {"status_code": 429, "body": {"error": {}}}, "error": None}
    lost = {"custom_id": "b", "response": None, "error": {"code": "batch_expired"}}
    paths = written(tmp_path, [INPUT, {**INPUT, "custom_id": "b"}], [refused, lost])

    answers = [call.answered for call in ImportedLog(paths).calls()]
    assert [answered.state for answered in answers if answered is not None] == ["failed", "failed"]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=40),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(["messages", "custom_id", "body", "response", "call_type", "spend"]),
                        inner,
                        max_size=4,
                    ),
                ),
                max_leaves=8,
            ).map(json.dumps),
        ),
        max_size=5,
    )
)
def test_whatever_a_line_holds_it_is_a_call_or_has_a_reason(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    """No line ends the reading, and none is lost without being counted."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text("".join(line.replace("\n", " ").replace("\r", " ") + "\n" for line in lines))
    log = ImportedLog([path])
    calls = list(log.calls())
    complained = sum(
        len(found) for kind in (log.reading.malformed, log.reading.left_out) for found in kind.values()
    )

    assert complained + len(calls) <= log.reading.lines <= complained + 2 * len(calls)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """The message lists what there is."""
    with pytest.raises(ConfigError, match="litellm, openai"):
        ImportedLog([tmp_path / "x"], "langsmith")


def test_a_negative_price_is_none() -> None:
    """What LiteLLM says was paid counts if it can have been; a payload without it may have a row's spend."""
    for line, paid in (
        ({**PAYLOAD, "response_cost": -1}, None),
        ({**PAYLOAD, "response_cost": None, "spend": 0.5}, 0.5),
        ({**PAYLOAD, "response_cost": 0}, 0.0),
    ):
        answered = read("litellm", line).answered
        assert answered is not None
        assert answered.paid_usd == paid


def test_a_pair_may_hold_a_stream_or_no_answer() -> None:
    """Chunks are one answer, whose last one counts the tokens; without a response a call is no failure."""
    chunks = [
        {
            "object": "chat.completion.chunk",
            "model": "m-2",
            "choices": [{"delta": {"content": "a"}}],
            "usage": None,
        },
        {"object": "chat.completion.chunk", "model": "m-2", "choices": [], "usage": ANSWER["usage"]},
    ]
    streamed = read("openai", {**PAIR, "response": chunks}).answered
    assert streamed == read("openai", PAIR).answered
    assert read("openai", {**PAIR, "response": None}).answered is None
    failed = read("openai", {**PAIR, "response": [*chunks, {"error": {"message": "overloaded"}}]}).answered
    assert failed is not None
    assert failed.state == "failed"


def test_a_byte_order_mark_costs_no_line(tmp_path: Path) -> None:
    """Files of some editors begin with one; the first call is read all the same."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PAIR).encode() + b"\r\n")

    assert len(list(ImportedLog([path]).calls())) == 1
