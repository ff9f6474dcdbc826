"""Heuristic signals beyond keywords and context: numbers of a text, turns, events, languages, roles."""

import math
from typing import Any

import orjson
import pytest

from agents.content import Content, Identity
from agents.signals.authz import Authz
from agents.signals.conversation import Conversation
from agents.signals.event import Event
from agents.signals.keyword import Keyword
from agents.signals.language import Language
from agents.signals.structure import Structure


def said(text: str) -> Content:
    """Return content with one user turn."""
    return Content(orjson.dumps({"messages": [{"role": "user", "content": text}]}))


def keyword(*keywords: str, operator: str = "OR", **more: Any) -> Keyword:
    """Return a keyword signal."""
    return Keyword.model_validate({"name": "k", "operator": operator, "keywords": keywords, **more})


def structure(kind: str, source: dict[str, Any], **more: Any) -> Structure:
    """Return a structure signal."""
    return Structure.model_validate({"name": "s", "feature": {"type": kind, "source": source}, **more})


def test_structure_publishes_its_number_and_a_distance() -> None:
    """The number is there in any case; confidence grows from 0.5 with the distance to a bound."""
    questions = {"type": "regex", "pattern": "[?]"}
    far = structure("count", questions, predicate={"gte": 1}).evaluate(said("a? b? c?"))
    near = structure("count", questions, predicate={"gte": 3}).evaluate(said("a? b? c?"))
    none = structure("count", questions, predicate={"gte": 4}).evaluate(said("a? b? c?"))

    assert (far.value, near.value, none.value) == (3, 3, 3)
    assert math.isclose(far.confidence, 1 / (1 + math.exp(-8)))
    assert (near.confidence, none.confidence, none.matched) == (0.5, 0.0, False)


def test_density_is_a_share_of_words_in_any_language() -> None:
    """Each CJK character is a word; an empty text has no density."""
    marks = {"type": "keyword_set", "keywords": ["急", "soon"]}

    assert structure("density", marks).evaluate(said("soon 急急 x")).value == 3 / 4
    assert structure("density", marks).evaluate(said("?!")).value == 0


@pytest.mark.parametrize(
    ("feature", "fault"),
    [
        ({"type": "exists", "source": {"type": "text_bytes"}}, "text_bytes"),
        ({"type": "sequence", "source": {"type": "regex", "pattern": "x"}}, "sequence"),
        ({"type": "count", "source": {"type": "keyword_set"}}, "keywords"),
        ({"type": "count", "source": {"type": "sequence", "sequences": [["one"]]}}, "two"),
        ({"type": "count", "source": {"type": "tokens"}}, "source.type"),
        ({"type": "mean", "source": {"type": "regex", "pattern": "x"}}, "feature.type"),
        ({"type": "count", "source": {"type": "regex", "pattern": "("}}, "RE2"),
    ],
)
def test_a_structure_that_cannot_be_counted_is_refused(feature: dict[str, Any], fault: str) -> None:
    """What does not fit together is told before a request meets it."""
    [complaint] = Structure.model_validate({"name": "s", "feature": feature}).complaints()

    assert fault in complaint.message


def test_the_shape_of_a_conversation_is_counted() -> None:
    """Roles count as written, developers once; a result or an open call keeps a tool loop active."""
    turns: list[dict[str, Any]] = [
        {"role": "developer", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "User", "content": "nobody"},
        {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "look"}]},
        {"role": "assistant", "tool_calls": [{"id": "1"}, {"id": "2"}]},
        {"role": "tool", "tool_call_id": "flowtool_1", "content": "done"},
    ]
    content = Content(
        orjson.dumps({"messages": turns, "tools": [{}], "functions": [{}, {}], "tool_choice": "none"})
    )
    expected = {
        ("message", ""): 4,
        ("message", "user"): 1,
        ("message", "developer"): 1,
        ("message", "non_user"): 3,
        ("tool_definition", ""): 3,
        ("assistant_tool_call", ""): 2,
        ("assistant_tool_cycle", ""): 1,
        ("active_tool_loop", ""): 1,
        ("image_content", ""): 1,
        ("tool_choice_none", ""): 1,
        ("tool_choice_required", ""): 0,
        ("flow_tool_state", ""): 1,
    }
    for (kind, role), value in expected.items():
        source = {"type": kind, "role": role}
        rule = Conversation.model_validate({"name": "c", "feature": {"type": "count", "source": source}})
        found = rule.evaluate(content)
        assert (found.value, found.matched) == (value, True), (kind, role)
        exists = Conversation.model_validate({"name": "c", "feature": {"type": "exists", "source": source}})
        assert exists.evaluate(content).matched is (value > 0)


def test_an_event_is_groups_of_words() -> None:
    """Each configured group counts once; what is met is told by label, before the observation."""
    rule = Event(name="e", event_types=("payment_failed", " "), severities=("HIGH", "fatal"), temporal=True)
    *told, found = Event.group([rule])(said("a High payment_failed"))

    assert [(row.label, row.value, row.matched) for row in told] == [("severity", 1.0, False)]
    assert found.confidence == 0.5 + 0.5 * 2 / 3
    assert not rule.evaluate(said("highly payment_failed_2")).matched
    assert [oddity.path for oddity in rule.oddities()] == [("severities", 1)]


def test_the_lowest_language_threshold_rules_all_unless_each_has_its_own() -> None:
    """A rule that asks for certainty makes French come out as English; with its own threshold it does not."""
    french = said("Pourquoi la pompe perd-elle de la pression pendant la nuit, et que faire contre ?")
    rules: list[dict[str, Any]] = [{"name": "fr"}, {"name": "de", "threshold": 1}, {"name": "en"}]

    def matched(**more: Any) -> list[str]:
        group = Language.group([Language.model_validate({**rule, **more}) for rule in rules])
        return [row.name for row in group(french) if row.matched]

    assert matched() == ["en"]
    assert matched(thresholds="own") == ["fr"]
    assert Language(name="en").evaluate(said("12345")).matched
    assert not Language(name="en", thresholds="own").evaluate(said("12345")).matched


def test_roles_follow_from_the_identity_in_the_headers() -> None:
    """Names are exact, groups comma-separated; a role is told once, in the order of the bindings."""
    bindings = [
        {"name": "1", "role": "staff", "subjects": [{"kind": "User", "name": "ana"}]},
        {"name": "2", "role": "law", "subjects": [{"kind": "group", "name": " eu "}]},
        {"name": "3", "role": "staff", "subjects": [{"kind": "GROUP", "name": "eu"}]},
    ]
    group = Authz.group([Authz.model_validate(binding) for binding in bindings])
    body = orjson.dumps({"messages": []})

    def roles(**headers: str) -> list[tuple[str, bool]]:
        identity = Identity("x-who", "x-teams")
        named = {f"x-{key}": value for key, value in headers.items()}
        return [(row.name, row.matched) for row in group(Content(body, named, identity))]

    assert roles(who="bo", teams="us, eu") == [("law", True), ("staff", True)]
    assert roles(who="ana") == [("staff", True), ("law", False)]
    assert roles(who="Ana") == [("staff", False), ("law", False)]
    assert roles(teams="eu") == [("staff", False), ("law", False)]


def test_keyword_rules_of_all_methods_are_observed_together() -> None:
    """One group holds literals, patterns, fuzzy words, BM25 and n-grams; each answers as it would alone."""
    rules = [
        keyword("urgent", "asap", operator="AND"),
        keyword("urgent", operator="NOR"),
        keyword(r"\d+ \w+", method="regex"),
        keyword("urgnt", fuzzy_match=True, fuzzy_threshold=1),
        keyword("invoices", method="BM25"),
        keyword("urgnt", method="ngram"),
        keyword("сервер", word_boundary="unicode"),
        keyword("", "x", empty_keywords="ignore"),
    ]
    for text in ("urgent", "an invoice, asap and urgent", "12 сервер", "", "x"):
        together = Keyword.group(rules)(said(text))
        assert list(together) == [rule.evaluate(said(text)) for rule in rules]
    assert [row.matched for row in Keyword.group(rules)(said("12 urgent сервер"))] == [
        False,
        False,
        True,
        True,
        False,
        True,
        True,
        False,
    ]
