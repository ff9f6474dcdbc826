"""``signalbox bench signals``: what it measures is the case that it promises, and cheap."""

import orjson
from typer.testing import CliRunner

import signalbox
from replay.bench_signals import body, policy
from replay.policy_cli import load_plugins


def test_the_case_is_the_one_that_is_promised() -> None:
    """30 literal rules of three words, 3 context, 2 structure, 1 conversation, 3 languages, 64 words."""
    load_plugins()
    signals = policy(("de", "fr", "es")).routing.signals
    [message] = orjson.loads(body(3))["messages"]

    assert {name: len(rules) for name, rules in signals.items()} == {
        "keywords": 30,
        "context": 3,
        "structure": 2,
        "conversation": 1,
        "language": 3,
    }
    assert len(message["content"].split()) == 64
    assert body(3) != body(4)


def test_a_request_costs_little() -> None:
    """CPU time stays within three times what is aimed at, on whatever machine; the docs hold the numbers."""
    result = CliRunner().invoke(signalbox.app, ["bench", "signals", "--json"])
    found = orjson.loads(result.stdout)

    assert result.exit_code == 0
    assert 0 < found["heuristics_ms"] <= 3 * 0.35
    assert 0 < found["with_language_ms"] <= 3 * 0.6
