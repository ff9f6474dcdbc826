"""An explanation holds everything about a request but what was asked and answered."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from replay.drawing import drawn
from replay.explain import RuleNode, as_json, plain, rule_tree
from replay.trail import Trail, UnknownRequestError, trail
from replay.view import MemoryLog
from schemas.completion import Result
from schemas.dead_letter import DeadLetter, Header
from schemas.decision import Decision, Trace
from schemas.feedback import Feedback
from schemas.request import Request
from schemas.sealed import seal_plainly
from schemas.topics import RECORDS
from tests.replay.logs import ANSWER, PARTITIONS, PROMPT, LogBuilder
from tests.schemas.records import records


def _view(builder: LogBuilder) -> MemoryLog:
    return MemoryLog(builder.envelopes, builder.policies)


def _routed(builder: LogBuilder, start: int = 0) -> tuple[Request, Decision]:
    """Append lines until one was routed, and return that."""
    for number in range(start, start + 100):
        request, decision = builder.answered(number)
        if decision.core.decision == "code-help":
            return request, decision
    raise AssertionError


def _text(found: Trail) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(drawn(found))
    return captured.get()


def _json(found: Trail) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(orjson.dumps(as_json(found)))
    return value


def test_an_answered_request_is_explained_from_admission_to_result() -> None:
    """Signals, the rule tree, candidates, plan, attempts, cost and timing are all there."""
    builder = LogBuilder()
    request, decision = _routed(builder)
    value = _json(trail(_view(builder), request.request_id))

    assert value["outcome"] == "answered"
    assert value["request"]["custom_id"] == request.custom_id
    assert {s["role"] for s in value["signals"]} == {"embedding", "heuristics"}
    assert value["signals"][0]["observations"][0]["name"] == "maths"
    assert value["decision"]["core"]["candidates"] == ["large", "small", "tiny"]
    assert sum(value["decision"]["core"]["propensities"]) == pytest.approx(1)
    assert value["decision"]["core"]["chosen"] == decision.core.chosen
    assert value["decision"]["core"]["facts"] == {"requested_model": "auto"}
    assert value["decision"]["rule_tree"]["children"][0]["leaf"] == "keyword:code"
    assert [a["record"] for a in value["attempts"]] == ["AttemptStarted", "AttemptEnded"]
    assert value["completions"][0]["completion_tokens"] == 30
    assert value["result"]["cost_usd"] == 0.0005
    assert value["dead_letters"] == value["collapsed"] == []
    assert value["timing"][0]["what"] == "accepted"
    moments = [hop["at"] for hop in value["timing"]]
    assert moments == sorted(moments)


def test_the_drawing_shows_what_the_values_hold() -> None:
    """A person sees the path of the request at a glance."""
    builder = LogBuilder()
    request, decision = _routed(builder)
    text = _text(trail(_view(builder), request.request_id))

    for part in (
        f"request {request.request_id.hex()}: answered by {decision.core.chosen}",
        "tenant acme",
        "✓ keyword:code",
        "signals of embedding",
        "decision code-help: routed",
        "propensity 0.5",
        "plan: ",
        "attempt by w1: ok, status 200",
        "12 + 30 tokens",
        "$0.000500",
        "timing",
    ):
        assert part in text


@pytest.mark.parametrize("secret", [PROMPT, ANSWER])
def test_neither_form_quotes_a_prompt_or_an_answer(secret: bytes) -> None:
    """Bodies, subjects, headers and answers never leave the log through an explanation."""
    builder = LogBuilder()
    request, _ = _routed(builder)
    _dead_letter(builder, request)
    builder.append("results", 0, _failure(request))
    found = trail(_view(builder), request.request_id)

    for text in (_text(found), orjson.dumps(as_json(found)).decode(), str(as_json(found))):
        assert secret.decode() not in text
        assert secret.hex() not in text


def _dead_letter(builder: LogBuilder, request: Request) -> None:
    headers = (Header("x", PROMPT),)
    place = ("requests", 0, 3, 5)
    dead = DeadLetter(
        "decision", "KeyError", "at line 3", *place, 1, "", 9, request.request_id, PROMPT, PROMPT, headers
    )
    builder.append("dead-letters", (request.line or 0) % PARTITIONS, dead)


def _failure(request: Request) -> Result:
    echo = f"the provider says: {PROMPT.decode()}"
    ended = ("", "", "", 0, 0.0, 9, 9, request.policy_hash)
    return Result(request.request_id, "acme", 400, "bad_request", echo, *ended, answer=seal_plainly(ANSWER))


@given(st.sampled_from(RECORDS).flatmap(records))
def test_any_record_becomes_plain_json_without_its_sealed_bytes(record: object) -> None:
    """Whatever a record holds, its plain form is JSON, and bytes are ids or withheld."""
    text = orjson.dumps(plain(record)).decode()

    assert "'" not in type(record).__name__
    assert json.loads(text) is not None
    assert '"data"' not in text


def test_repeats_are_shown_as_counting_for_nothing() -> None:
    """The first request, decision and result count; later ones are listed with their places."""
    builder = LogBuilder()
    request, _ = _routed(builder)
    for topic in ("requests", "decisions", "results"):
        held = [e for e in builder.envelopes if e.topic == topic]
        again = next(e for e in held if request.request_id in (e.value or b""))
        builder.append(topic, again.partition, again.value or b"", request.request_id)
    found = trail(_view(builder), request.request_id)
    value = _json(found)

    assert [(c["record"], c["topic"]) for c in value["collapsed"]] == [
        ("Request", "requests"),
        ("Decision", "decisions"),
        ("Result", "results"),
    ]
    assert value["decision"]["at"]["offset"] < value["collapsed"][1]["offset"]
    assert "a repeated Decision counts for nothing" in _text(found)


def test_the_signals_shown_are_those_decided_upon() -> None:
    """Of two SignalSets of a role the one that the decision names is shown, the other collapsed."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    builder.signals(request, origin)
    sets, inputs = builder.signals(request, origin)
    builder.decision(request, origin, sets, inputs)
    value = _json(trail(_view(builder), request.request_id))

    assert {s["at"]["offset"] for s in value["signals"]} == {i.offset for i in inputs}
    assert [c["record"] for c in value["collapsed"]] == ["SignalSet", "SignalSet"]


def test_a_request_under_way_is_pending() -> None:
    """Before its decision a request is explained as far as the log goes."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    builder.signals(request, origin)
    found = trail(_view(builder), request.request_id)

    assert _json(found)["outcome"] == "pending"
    assert _json(found)["decision"] is None
    assert "decision: none in this log" in _text(found)


def test_a_failed_request_says_why() -> None:
    """The code of the error is shown, the provider's message is not."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    builder.append("results", origin.partition, _failure(request))
    found = trail(_view(builder), request.request_id)

    assert _json(found)["outcome"] == "failed"
    assert "failed with bad_request (400)" in _text(found)
    assert "error_message" not in _json(found)["result"]


def test_a_dead_letter_says_who_gave_up_and_why() -> None:
    """Stage, class and reason are shown."""
    builder = LogBuilder()
    request, _ = builder.request(1)
    _dead_letter(builder, request)
    found = trail(_view(builder), request.request_id)

    assert _json(found)["outcome"] == "dead_lettered"
    assert "dead letter of decision: KeyError, at line 3" in _text(found)


def test_feedback_is_part_of_the_story() -> None:
    """A rating is shown with its source, without its comment."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    rating = Feedback(request.request_id, "judge", "helpful", 0.5, 1.0, 9, origin, seal_plainly(PROMPT))
    builder.append("feedback", origin.partition, rating)
    found = trail(_view(builder), request.request_id)

    assert "feedback of judge: helpful 0.5" in _text(found)
    assert _json(found)["feedback"][0]["comment"] == {"withheld": True, "alg": "none"}


def test_markup_in_a_users_id_is_shown_as_it_is() -> None:
    """A custom id cannot colour the terminal or vanish."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    builder.append("requests", origin.partition, replace(request, custom_id="[red]x[/red]"))
    builder.envelopes.pop(0)

    assert "custom id [red]x[/red]" in _text(trail(_view(builder), request.request_id))


def test_an_unknown_request_is_said_to_be_unknown() -> None:
    """The message says what the log does hold."""
    builder = LogBuilder()
    builder.decided(1)

    with pytest.raises(UnknownRequestError, match=r"0{32}.*decisions, requests"):
        trail(_view(builder), bytes(16))


def test_damaged_records_do_not_hide_the_others() -> None:
    """A record that cannot be decoded is passed over."""
    builder = LogBuilder()
    request, origin, _ = builder.decided(1)
    builder.append("decisions", origin.partition, b"\x00\x00\x00\x00\x03" + request.request_id)

    assert len(trail(_view(builder), request.request_id).of(Decision)) == 1


def test_a_trace_becomes_the_tree_that_it_was_made_from() -> None:
    """Preorder with depths gives back nesting and order."""
    trace = Trace(
        ("and", "leaf", "not", "leaf", "leaf"),
        ("", "a:b", "", "c:d", "e:f"),
        (1, 1, 1, 0, 2),
        (0.5, 1.0, 0.5, 0.1, 0.0),
        (0, 1, 1, 2, 1),
    )
    tree = rule_tree(trace)

    assert tree is not None
    assert [child.leaf or child.kind for child in tree.children] == ["a:b", "not", "e:f"]
    assert tree.children[1].children == (RuleNode("leaf", "c:d", "no_match", 0.1, ()),)
    assert tree.children[2].state == "unknown"
    assert rule_tree(Trace()) is None
