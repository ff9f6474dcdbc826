"""Shadow signals: observed at a rate, logged with it, and seen by no decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.decision import decide, facts_of
from agents.errors import ConfigError
from agents.gather import NO_ORIGIN, Gathered, Part
from agents.loading.findings import findings
from agents.observe import Observer
from agents.policy import Policy, PolicyBook
from agents.ports import Inference
from agents.shadow import shadow_core
from agents.testing import HashClassifier
from agents.topology import decision_stage
from schemas.decision import Decision, DecisionMeta
from schemas.envelope import Envelope
from schemas.identity import Origin
from schemas.signal import Observation, Observations, SignalSet
from tests.agents.samples import NOW, observation, policy, request

BASE = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: north}]}
    - {name: large, backend_refs: [{name: south}]}
routing:
  signals:
    keywords: [{name: urgent, operator: OR, keywords: [urgent]}]
    context: [{name: long, min_tokens: 1, max_tokens: 8K}]
    language: [{name: en}, {name: de}]
    embeddings: [{name: law, threshold: 0.5, candidates: [contract law]}]
  decisions:
    - name: now
      priority: 2
      rules: {type: keyword, name: urgent}
      modelRefs: [{model: large, weight: 1}, {model: small, weight: 1}]
      algorithm: {type: weighted}
"""
SHADOW = (
    BASE
    + "shadow_signals: {'context:long': 0.3, 'language:en': 1.0, 'language:de': 0.2, 'embedding:law': 0.3}\n"
)
NEXT = BASE.replace("type: keyword, name: urgent", "type: context, name: long")
UNDER = policy(SHADOW)
LANGUAGES = ("language:en", "language:de")
CLOCK = 1_800_000_000_000_000


def observer(role: str, under: Policy = UNDER) -> Observer:
    """Return an observer of *role*."""
    return Observer(role, PolicyBook([under]), HashClassifier(), lambda: CLOCK)


async def seen(role: str, count: int, under: Policy = UNDER) -> list[SignalSet | None]:
    """Return the sets of *count* requests."""
    asked = [(request(f"urgent {n}", under=under, number=n), Origin(0, n)) for n in range(count)]
    return await observer(role, under).observe(asked)


def codes(text: str) -> set[str]:
    """Return the codes of all that is to be said of *text*."""
    return {finding.code for finding in findings(Policy.read(text), {})}


async def test_shadow_signals_are_observed_at_their_rate_together() -> None:
    """Those of one type have one rate, those of one rate come together; sets say which and how likely."""
    sets = [found for found in await seen("heuristics", 2000) if found is not None]
    both = [found for found in sets if "context:long" in found.shadow]

    assert len(sets) == 2000
    assert abs(len(both) - 600) <= 5 * (2000 * 0.3 * 0.7) ** 0.5
    assert {found.shadow for found in sets} == {LANGUAGES, ("context:long", *LANGUAGES)}
    assert {found.shadow_rate for found in both} == {(0.3, 1.0, 1.0)}
    for found in sets:
        unlabelled = [f"{o.type}:{o.name}" for o in found.observations if not o.label]
        assert unlabelled == ["keyword:urgent", *found.shadow]
        assert not found.only_shadow


async def test_a_role_that_nothing_demands_speaks_of_the_drawn_requests_only() -> None:
    """The same draw as in other roles says which."""
    heuristics, embeddings = await seen("heuristics", 300), await seen("embedding", 300)

    assert [found is not None for found in embeddings] == [
        found is not None and "context:long" in found.shadow for found in heuristics
    ]
    assert all(found.only_shadow and found.classifiers == ("encoder",) for found in embeddings if found)
    assert UNDER.roles == ("embedding", "heuristics")


async def test_an_outage_shows_as_failed() -> None:
    """A shadow signal that could not be computed is logged as such, as any other."""
    down = Observer("embedding", PolicyBook([UNDER]), HashClassifier(down=True), lambda: CLOCK)
    asked = [(request(f"urgent {n}", under=UNDER, number=n), Origin(0, n)) for n in range(20)]
    sets = [found for found in await down.observe(asked) if found is not None]

    assert {o.status for found in sets for o in found.observations} == {"failed"}


class Both(HashClassifier):
    """A classifier that answers once it is asked for two things at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0
        self._second = asyncio.Event()

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Answer both."""
        self._asked += 1
        if self._asked == 2:
            self._second.set()
        await asyncio.wait_for(self._second.wait(), 5.0)
        return await super().__call__(classifier, texts, timeout_s)


async def test_what_is_demanded_does_not_wait_for_what_is_not() -> None:
    """In one batch both are asked for at the same time: shadow signals take nothing of the time to decide."""
    demands = policy(BASE.replace("type: keyword, name: urgent", "type: embedding, name: law"))
    tries = policy(BASE + "shadow_signals: {'embedding:law': 1.0}\n")
    observer = Observer("embedding", PolicyBook([demands, tries]), Both(), lambda: CLOCK)
    asked = [request("urgent", under=under, number=n) for n, under in enumerate((demands, tries))]
    found = await observer.observe([(each, Origin(0, n)) for n, each in enumerate(asked)])

    assert [each.observations.status for each in found if each is not None] == [("ok",), ("ok",)]
    assert [each.shadow for each in found if each is not None] == [(), ("embedding:law",)]


ROWS = st.builds(
    observation,
    st.sampled_from(["keyword", "context", "language", "embedding"]),
    st.sampled_from(["urgent", "long", "en", "law"]),
    matched=st.booleans(),
    confidence=st.floats(0, 1),
    status=st.sampled_from(["ok", "failed"]),
)


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6), st.integers(0, 9))
@settings(max_examples=200)
def test_a_decision_is_the_same_with_and_without_shadow_signals(
    own: list[Observation], others: list[Observation], number: int
) -> None:
    """Whatever was observed in shadow, in the same set or in one beside, the core is equal."""
    demanded = [row for row in own if row.type == "keyword"]
    beside = [row for row in others if row.type != "keyword"]
    asked = request(f"r{number}", under=UNDER)
    plain = SignalSet(
        asked.request_id, Origin(0, 0), "heuristics", UNDER.hash, "", Observations.of(demanded), 0, 0
    )
    names = tuple(dict.fromkeys(f"{row.type}:{row.name}" for row in beside))
    rates = (0.5,) * len(names)
    mixed = replace(
        plain, observations=Observations.of([*demanded, *beside]), shadow=names, shadow_rate=rates
    )
    alone = replace(
        plain, role="embedding", observations=Observations.of(beside), shadow=names, shadow_rate=rates
    )

    def core(*sets: SignalSet) -> object:
        pairs = [(found.role, found) for found in sets]
        return decide(UNDER, recipe="", request_id=asked.request_id, sets=pairs, facts=facts_of("auto"))

    assert core(mixed) == core(plain) == core(plain, alone)


async def test_another_policy_sees_what_was_observed_in_shadow() -> None:
    """A policy that demands such a signal decides by it, in replay and beside the active one."""
    demanding = policy(NEXT)
    [found] = [found for found in await seen("heuristics", 12) if found and "context:long" in found.shadow][
        :1
    ]
    sets = [(found.role, found)]
    facts = facts_of("auto")
    later = decide(demanding, recipe="", request_id=found.request_id, sets=sets, facts=facts)
    made = decide(UNDER, recipe="", request_id=found.request_id, sets=sets, facts=facts)
    beside = shadow_core(
        demanding, UNDER, Decision(found.request_id, found.origin, made, DecisionMeta((), 0, 0)), sets
    )

    assert (later.decision, later.signals_missing) == ("now", ())
    assert beside == later


def test_a_set_that_nobody_demands_is_passed_over() -> None:
    """It belongs to no request in the gather: nothing waits for it, and it cannot come late."""
    stage = decision_stage(("embedding", "heuristics"), PolicyBook([UNDER]), partitions=1)
    asked = request(under=UNDER)
    law = Observations.of([observation("embedding", "law")])
    alone = SignalSet(asked.request_id, Origin(0, 4), "embedding", UNDER.hash, "", law, 0, 0)
    envelope = Envelope("signals.embedding", 0, 9, NOW, None, None)

    assert (
        stage.arrive("signals.embedding", envelope, replace(alone, shadow=("embedding:law",))).origin
        == NO_ORIGIN
    )
    assert stage.arrive("signals.embedding", envelope, alone).origin == 4
    assert stage.arrive("requests", replace(envelope, topic="requests"), asked).demanded == (
        "signals.heuristics",
    )


@pytest.mark.parametrize(
    ("kind", "name", "missing"), [("context", "long", ()), ("embedding", "law", ("embedding:law",))]
)
async def test_a_policy_beside_sees_shadow_signals_of_a_demanded_role_alone(
    kind: str, name: str, missing: tuple[str, ...]
) -> None:
    """The decision waits for heuristics, so it hands over what they observed; it never gathers the other."""
    under = policy(BASE + "shadow_signals: {'context:long': 1.0, 'embedding:law': 1.0}\n")
    trying = policy(BASE.replace("type: keyword, name: urgent", f"type: {kind}, name: {name}"))
    stage = decision_stage(under.roles, PolicyBook([under]), shadow=lambda: trying, partitions=1)
    asked = request("urgent", under=under)
    sets = [(await seen(role, 1, under))[0] for role in under.roles]
    parts = {}
    for found in sets:
        assert found is not None
        source = f"signals.{found.role}"
        arrival = stage.arrive(source, Envelope(source, 0, 0, NOW, None, None), found)
        if arrival.origin != NO_ORIGIN:
            parts[source] = Part(0, NOW, replace(found, request_id=asked.request_id))
    known = stage.arrive("requests", Envelope("requests", 0, 0, NOW, None, None), asked).record
    _, beside = stage.step(stage.state(), 0, Gathered(0, known, parts, ()), NOW)

    assert beside.topic == "decisions.shadow"
    assert beside.record.core.signals_missing == missing


@pytest.mark.parametrize(
    ("rate", "message"), [("0.5", "no signal is declared"), ("1.5", "less than or equal to 1")]
)
def test_what_cannot_be_shadowed_is_refused(rate: str, message: str) -> None:
    """The error says what is wrong."""
    name = "context:alien" if rate == "0.5" else "context:long"
    with pytest.raises(ConfigError, match=message):
        Policy.parse(BASE + f"shadow_signals: {{'{name}': {rate}}}\n")


def test_a_shadow_without_effect_is_found() -> None:
    """What decisions demand is observed anyhow, and what is not hosted only fails."""
    assert "demanded-anyhow" in codes(BASE + "shadow_signals: {'keyword:urgent': 0.5}\n")
    assert "demanded-anyhow" not in codes(SHADOW)
    assert "shadow_signals" not in policy(BASE).normal_form
