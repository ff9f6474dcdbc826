"""The shadow decides by what was observed for the stamped policy, and by nothing else."""

import pytest

from agents.decision import decide, facts_of
from agents.policy import Policy
from agents.shadow import FAILED, shadow_core
from agents.signals import NAN
from schemas.decision import Decision, DecisionCore, DecisionMeta
from schemas.identity import Origin
from schemas.signal import Observation, Observations, SignalSet
from tests.agents.samples import policy

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: north}]}
    - {name: large, backend_refs: [{name: north}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    metadata:
      - {name: paying, key: plan, equals: gold}
  decisions:
    - {name: code, priority: 2, rules: {type: keyword, name: code}, modelRefs: [{model: large}]}
"""
STAMPED = policy(YAML)
CHEAPER = policy(YAML.replace("model: large}]", "model: small}]"))
REDEFINED = policy(YAML.replace("keywords: [python]", "keywords: [python, rust]"))
ONLY_SHADOW = policy(
    YAML
    + "    - {name: paid, priority: 9, rules: {type: metadata, name: paying}, modelRefs: [{model: large}]}\n"
)
ID = bytes(16)


def code_seen() -> list[tuple[str, SignalSet]]:
    """Return the signals of a request that matches `code`."""
    row = Observation("keyword", "code", "", matched=True, confidence=1.0, value=NAN, status="ok", reason="")
    found = SignalSet(ID, Origin(0, 0), "heuristics", STAMPED.hash, "", Observations.of([row]), 0, 0)
    return [("heuristics", found)]


def shadowed(shadow: Policy, model: str = "auto") -> DecisionCore:
    """Return what *shadow* decides about that request."""
    core = decide(STAMPED, recipe="", request_id=ID, sets=code_seen(), facts=facts_of(model))
    return shadow_core(shadow, STAMPED, Decision(ID, Origin(0, 0), core, DecisionMeta((), 0, 0)), code_seen())


def test_the_same_signals_lead_where_the_shadow_says() -> None:
    """With signals defined alike, its core is what it would decide if it were the stamped one."""
    own = decide(CHEAPER, recipe="", request_id=ID, sets=code_seen(), facts=facts_of("auto"))

    assert shadowed(CHEAPER) == own
    assert (own.policy_hash, own.decision, own.chosen) == (CHEAPER.hash, "code", "small")


def test_a_signal_that_only_the_shadow_demands_is_unknown() -> None:
    """It is listed as missing, and does not match."""
    core = shadowed(ONLY_SHADOW)

    assert core.decision == "code"
    assert "metadata:paying" in core.signals_missing


def test_a_signal_defined_otherwise_is_unknown() -> None:
    """The same name with other words: what was observed answers another question."""
    core = shadowed(REDEFINED)

    assert core.signals_missing == ("keyword:code",)
    assert (core.outcome, core.decision, core.chosen) == ("default", "", "small")


def test_a_model_that_the_shadow_does_not_know_fails_there_alone() -> None:
    """The request names a model of the stamped policy only."""
    assert shadowed(STAMPED, "huge").failure == "model_not_found"


def test_a_shadow_that_breaks_says_so_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only looks on must not bury a request."""

    def broken(*_args: object, **_named: object) -> DecisionCore:
        raise ZeroDivisionError

    monkeypatch.setattr("agents.shadow.decide", broken)

    assert (shadowed(CHEAPER).outcome, shadowed(CHEAPER).failure) == ("failed", FAILED)
