"""Signals: what each observes, what each refuses, and that none lacks an example."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.content import Content
from agents.errors import InvalidRecord
from agents.signals import Classified, Heuristic, SignalConfig, signal
from agents.signals.context import Context
from agents.signals.embedding import Embedding
from agents.signals.keyword import Keyword
from agents.signals.metadata import Metadata
from schemas.signal import Observation
from tests.agents import samples

EXAMPLES: dict[str, dict[str, Any]] = {
    "authz": {"name": "b", "bound_role": "staff", "subjects": [{"kind": "User", "name": "ana"}]},
    "classifier": {"name": "mood", "kind": "llm", "model": "judge", "labels": ["calm"], "instructions": "?"},
    "complexity": {"name": "depth", "hard": {"candidates": ["prove"]}, "easy": {"candidates": ["hi"]}},
    "context": {"name": "long", "min_tokens": "1K", "max_tokens": "2M"},
    "conversation": {"name": "tools", "feature": {"type": "exists", "source": {"type": "tool_definition"}}},
    "domain": {"name": "law", "mmlu_categories": ["law"]},
    "embedding": {"name": "law", "threshold": 0.5, "candidates": ["court"]},
    "event": {"name": "incident", "event_types": ["payment_failed"], "severities": ["high"]},
    "fact_check": {"name": "needs_fact_check"},
    "hallucination": {"name": "claims", "use_nli": True},
    "input_modality": {"name": "image", "modality": "image"},
    "jailbreak": {"name": "attack", "threshold": 0.7},
    "kb": {"name": "secret", "kb": "privacy", "target": {"kind": "label", "value": "pii"}},
    "keyword": {"name": "urgent", "operator": "OR", "keywords": ["urgent"]},
    "language": {"name": "de", "threshold": 0.6},
    "metadata": {"name": "paying", "key": "plan", "equals": "gold"},
    "modality": {"name": "AR"},
    "pii": {"name": "any", "threshold": 0.8},
    "preference": {"name": "terse", "examples": ["be brief"]},
    "reask": {"name": "again", "threshold": 0.8, "lookback_turns": 1},
    "safety": {"name": "harm", "labels": ["safe", "unsafe"], "unsafe_labels": ["unsafe"]},
    "structure": {
        "name": "questions",
        "feature": {"type": "count", "source": {"type": "regex", "pattern": "[?]"}},
        "predicate": {"gte": 3},
    },
    "user_feedback": {"name": "satisfied"},
}
SIGNALS = {name: cls for name, cls in signal if cls.__module__.startswith("agents.")}


def said(text: str, **more: Any) -> Content:
    """Return content with one user turn."""
    return Content(orjson.dumps({"messages": [{"role": "user", "content": text}], **more}))


def keyword(*keywords: str, operator: str = "OR", **more: Any) -> Keyword:
    """Return a keyword signal."""
    return Keyword.model_validate({"name": "k", "operator": operator, "keywords": keywords, **more})


def test_every_signal_has_an_example_here() -> None:
    """A signal that is added to the folder fails this test until it has an example."""
    assert samples.policy().hash
    assert set(EXAMPLES) == set(SIGNALS)


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_every_signal_says_what_it_is(name: str) -> None:
    """A signal has its own docstring, one of the two shapes, a role, a collection, and strict settings."""
    cls: type[SignalConfig] = SIGNALS[name]

    assert cls.__doc__ not in {None, SignalConfig.__doc__, Heuristic.__doc__, Classified.__doc__}
    assert issubclass(cls, Heuristic | Classified)
    assert cls.role
    assert cls.collection
    assert cls.model_validate(EXAMPLES[name]).name == EXAMPLES[name]["name"]
    with pytest.raises(ValidationError):
        cls.model_validate({**EXAMPLES[name], "no_such_setting": 1})
    assert cls.model_validate({}).names()
    assert list(cls.model_validate(EXAMPLES[name]).complaints()) == []


@pytest.mark.parametrize("name", sorted(SIGNALS))
@given(
    messages=st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "tool_calls"]), c)
        ),
        max_leaves=8,
    )
)
def test_odd_bodies_are_observed_or_stumbled_over_in_known_ways(name: str, messages: Any) -> None:
    """Whatever the messages are, a signal answers, or raises what the observer records as failed."""
    config = SIGNALS[name].model_validate(EXAMPLES[name])
    content = Content(orjson.dumps({"messages": messages}))
    try:
        found = config.evaluate(content) if isinstance(config, Heuristic) else config.encode(content)  # type: ignore[attr-defined]
    except (InvalidRecord, TypeError, ValueError, LookupError, AttributeError):
        return

    assert isinstance(found, Observation | str)


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("urgent", "this is urgent!", True),
        ("urgent", "URGENT", True),
        ("urgent", "insurgents", False),
        ("urgent", "urgently", False),
        ("urgent", "urgent_thing", False),
        ("urgent", "urgent\nline", True),
        ("c++", "I write c++", False),  # the boundary is ASCII: behind + there is none
        ("c++", "c++x", True),
        ("...", "wait...", True),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("紧急", "这是紧急情况", True),
        ("紧急", "不急", False),
        ("緊急1", "x緊急1y", True),
        ("été", "un été chaud", False),  # as the original has it: no ASCII word character at either end
    ],
)
def test_literal_keywords_have_ascii_word_boundaries(word: str, text: str, *, found: bool) -> None:
    """A keyword is a word by itself, unless it holds a Han character or no word character at all."""
    assert keyword(word).evaluate(said(text)).matched is found


def test_case_counts_only_if_asked_for() -> None:
    """case_sensitive keeps Urgent from matching urgent."""
    assert keyword("Urgent").evaluate(said("urgent")).matched
    assert not keyword("Urgent", case_sensitive=True).evaluate(said("urgent")).matched


@pytest.mark.parametrize(
    ("operator", "text", "matched"),
    [
        ("OR", "one", True),
        ("OR", "three", False),
        ("AND", "one two", True),
        ("AND", "one", False),
        ("NOR", "three", True),
        ("NOR", "two", False),
    ],
)
def test_operators_of_keywords(operator: str, text: str, *, matched: bool) -> None:
    """OR is any, AND is all, NOR is none."""
    found = keyword("one", "two", operator=operator).evaluate(said(text))

    assert found.matched is matched
    assert found.status == "ok"
    assert math.isnan(found.confidence)


def test_regex_keywords_are_re2_patterns(capfd: pytest.CaptureFixture[str]) -> None:
    """Method regex takes patterns as they are; a bad one, or a look-ahead, is refused quietly by name."""
    assert keyword(r"^pay \d+$", method="regex").evaluate(said("pay 12")).matched
    assert not keyword(r"^pay \d+$", method="regex").evaluate(said("please pay 12")).matched
    assert keyword("a|b", "c", method="regex", operator="AND").evaluate(said("bc")).matched
    for bad in ("(", "(?=x)", r"(a)\1"):
        [complaint] = keyword(bad, method="regex").complaints()
        assert "RE2" in complaint.message
        assert complaint.stage == "start"
    assert capfd.readouterr().err == ""


def test_only_the_last_user_turn_is_searched() -> None:
    """Earlier turns and the assistant's words are not looked at; parts of text are joined."""
    turns = [
        {"role": "user", "content": "urgent"},
        {"role": "user", "content": [{"type": "text", "text": "calm"}, {"type": "text", "text": "please"}]},
        {"role": "assistant", "content": "urgent"},
    ]
    content = Content(orjson.dumps({"messages": turns}))

    assert content.text == "calm please"
    assert not keyword("urgent").evaluate(content).matched
    assert Content(orjson.dumps({"messages": turns[2:]})).text == "urgent"
    assert Content(b"{}").text == ""


@pytest.mark.parametrize(
    ("written", "tokens"), [(7, 7), ("7", 7), ("2K", 2000), ("2k", 2000), ("1.5K", 1500), ("1M", 1_000_000)]
)
def test_token_counts_may_have_suffixes(written: Any, tokens: int) -> None:
    """K is a thousand and M a million."""
    assert Context(name="c", max_tokens=written).bounds == (0, tokens)


@pytest.mark.parametrize("written", ["K", "many", "infK", "nanM", "1e3K3", "1_000"])
def test_a_token_count_that_cannot_be_read_disables_the_rule(written: str) -> None:
    """As in the original the rule then never matches, which is told as an oddity."""
    rule = Context(name="c", max_tokens=written)

    assert not rule.evaluate(said("hi")).matched
    assert [oddity.code for oddity in rule.oddities()] == ["unreadable-tokens"]


def test_context_matches_within_its_bounds_inclusive() -> None:
    """The estimate is a quarter of the text's bytes plus the envelope; it is told, but no value of a rule."""
    content = said("x" * 400)  # 404 bytes with the role, and 4 tokens for the message
    tokens = 101 + 4

    assert Context(name="c", min_tokens=tokens, max_tokens=tokens).evaluate(content).matched
    assert not Context(name="c", min_tokens=tokens + 1, max_tokens=9999).evaluate(content).matched
    assert not Context(name="c", max_tokens=tokens - 1).evaluate(content).matched
    told, unmatched = Context.group([Context(name="c", max_tokens=1)])(content)
    assert (told.label, told.value) == ("tokens", tokens)
    assert not unmatched.matched
    assert math.isnan(unmatched.value)


def test_tokens_count_images_tools_and_the_reply() -> None:
    """Images, tool definitions and reserved reply tokens are part of the envelope."""
    plain = said("hi").token_floor
    image = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {}}]}
    ]

    assert Content(orjson.dumps({"messages": image})).token_floor == plain + 8192
    assert said("hi", max_tokens=100).token_floor == plain + 100
    assert said("hi", max_tokens=-100).token_floor == plain + len(b"-100")
    assert said("hi", tools=[{"a": 1}]).token_floor == plain + 8 + len(b'{"a":1}')


def test_metadata_compares_one_entry() -> None:
    """equals, in and exists each look at one entry; values that are no strings do not count."""
    content = said("hi", metadata={"plan": "gold", "seats": 3})

    def matched(**condition: Any) -> bool:
        return Metadata.model_validate({"name": "m", "key": "plan", **condition}).evaluate(content).matched

    assert matched(equals="gold")
    assert not matched(equals="Gold")
    assert matched(**{"in": ["silver", "gold"]})
    assert matched(exists=True)
    assert not matched(exists=False)
    assert matched(key="seats", exists=False)
    assert not matched(key="gone", equals="gold")


@pytest.mark.parametrize("conditions", [{}, {"equals": "a", "exists": True}, {"in": ["a"], "equals": "a"}])
def test_metadata_has_exactly_one_condition(conditions: dict[str, Any]) -> None:
    """No condition, or two, is refused."""
    [complaint] = Metadata.model_validate({"name": "m", "key": "k", **conditions}).complaints()

    assert "exactly one" in complaint.message


@pytest.mark.parametrize(
    ("method", "score"), [("max", 0.75 * 0.8 + 0.25 * (0.8 + 0.6) / 2), ("mean", 1.4 / 3), ("any", 0.8)]
)
def test_embeddings_aggregate_cosines(method: Any, score: float) -> None:
    """Against candidates at cosines 0.8, 0.6 and 0 each method comes to the number worked out by hand."""
    config = Embedding(
        name="e", threshold=score - 1e-6, candidates=("a", "b", "c"), aggregation_method=method
    )
    query = np.array([0.8, 0.6, 0.0], np.float32)
    found = config.decode(query, np.eye(3, dtype=np.float32))

    assert found.matched
    assert math.isclose(found.confidence, score, rel_tol=1e-6)
    assert found.value == found.confidence
    assert (
        not config.model_copy(update={"threshold": score + 1e-6})
        .decode(query, np.eye(3, dtype=np.float32))
        .matched
    )


def test_an_embedding_with_one_candidate_is_its_cosine() -> None:
    """With a single phrase every method is the cosine itself, and a near miss keeps its score."""
    for method in ("max", "mean", "any"):
        config = Embedding(name="e", threshold=0.9, candidates=("a",), aggregation_method=method)
        found = config.decode(np.array([0.6, 0.8], np.float32), np.array([[1.0, 0.0]], np.float32))

        assert (found.matched, found.status) == (False, "ok")
        assert math.isclose(found.confidence, 0.6, rel_tol=1e-6)
