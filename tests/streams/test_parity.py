"""Both drivers of the topology, the Faust host and the fold, emit the same records.

Scenes are played on both; the records of each partition are compared as bags. Nothing is left out
of a record: offsets are replaced by what lies there, since partitions may be written in any order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from agents.testing import REFUSED, TIMEOUT, Answer, policy_of, request_of
from schemas.codec import Codec
from schemas.decision import Decision
from schemas.identity import Origin
from schemas.job import AttemptEnded
from schemas.request import Request
from schemas.sealed import Body, Sealed
from schemas.signal import Observation, Observations, SignalSet
from schemas.topics import DECISIONS, REQUESTS, inbox_topic, jobs_topic, signals_topic
from tests.streams.scenes import Bag, Scene, Side, differences

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, provider_model_id: vendor/large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
    - {name: tiny, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
      - {name: urgent, operator: OR, keywords: [urgent]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: maths
      priority: 20
      rules: {type: embedding, name: maths}
      modelRefs: [{model: large}, {model: small}, {model: tiny}]
    - name: code
      priority: 10
      rules:
        operator: AND
        conditions:
          - {type: keyword, name: code}
          - operator: NOT
            conditions: [{type: keyword, name: urgent}]
      modelRefs: [{model: large, weight: 1}, {model: tiny, weight: 2}]
      algorithm: {type: weighted}
deadlines: {request_s: 20, call_s: 2, attempts: 2}
"""
OTHER_YAML = YAML.replace("keywords: [python]", "keywords: [rust]")
POLICY = policy_of(YAML)
TEXTS = ("solve this equation", "python please", "urgent python", "hello")
WAIT = 11_000
"""More than the time to `decide_by` and its grace."""

Step = Callable[[Side], None]


async def same(scene: Scene, *happens: str) -> None:
    """Play *scene* on both drivers and compare everything; some attempt must end with each of *happens*."""
    fold, totals = await scene.on_fold()
    host = await scene.on_host(totals)
    assert "\n".join(differences(fold, host)) == ""
    assert set(happens) <= codes_in(fold)


def codes_in(records: Bag) -> set[str]:
    """Return the codes and outcomes with which attempts ended."""
    codec = Codec()
    ends = [
        codec.decode(value) for (topic, _), bag in records.items() for _, value in bag if "attempts" in topic
    ]
    return {text for end in ends if isinstance(end, AttemptEnded) for text in (end.code, end.outcome)}


def publish(side: Side) -> None:
    """Publish the scene's policy."""
    side.publish()


def asked(n: int, side: Side) -> Request:
    """Return request *n*."""
    model = "tiny" if n % 7 == 6 else ""
    return request_of(
        side.policy,
        f"r{n}",
        TEXTS[n % 4] if n % 8 < 4 else f"{TEXTS[n % 4]} {n}",
        now=side.clock.now,
        model=model,
    )


def ask(*numbers: int, partitions: int = 2) -> Step:
    """Return a step that appends requests."""

    def step(side: Side) -> None:
        for n in numbers:
            side.put(REQUESTS, asked(n, side), n % partitions)

    return step


def observed(request: Request, origin: Origin, *, matched: bool = False) -> SignalSet:
    """Return a SignalSet of the embedding role, as the script of a slow classifier writes it."""
    rows = [Observation("embedding", "maths", "", matched, 0.95, 0.95, "ok", "")]
    return SignalSet(
        request.request_id, origin, "embedding", request.policy_hash, "", Observations.of(rows), 0, 0
    )


def signals(*rows: tuple[int, int, int | None, bool]) -> Step:
    """Return a step that appends signals: (request, offset of its origin, ms since admission, matched)."""

    def step(side: Side) -> None:
        for n, offset, when, matched in rows:
            record = observed(asked(n, side), Origin(0, offset), matched=matched)
            side.put(
                signals_topic("embedding"),
                record,
                0,
                None if when is None else asked(n, side).accepted_at + when,
            )

    return step


async def test_requests_of_every_outcome() -> None:
    """Routed by classifier, by weights, by default and bypassed requests, in two partitions and two runs."""
    await same(Scene(YAML, [publish, ask(*range(40)), 1000, ask(*range(40, 60))]))


async def test_late_and_missing_signals() -> None:
    """In time is what the log stamped at or before `decide_by`; the rest is late or never comes."""
    rows = [(0, 0, 9_000, True), (1, 1, 10_000, True), (2, 2, 10_001, True)]
    late = [(3, 3, 50_000, True), (4, 4, 9_999, False)]

    def ask_all(side: Side) -> None:
        for n in range(6):
            side.put(REQUESTS, replace(asked(n, side), recipe=""), 0)

    scene = Scene(
        YAML,
        [publish, ask_all, signals(*rows), 10_500, lambda s: _script(s, late), 1000, WAIT],
        ("signals.embedding",),
    )
    await same(scene)


def _script(side: Side, rows: list[tuple[int, int, int, bool]]) -> None:
    """Append signals with log timestamps of the scene's start plus an offset, whatever the time is now."""
    for n, offset, when, matched in rows:
        request = asked(n, side)
        base = side.clock.now - 10_500
        side.put(
            signals_topic("embedding"), observed(request, Origin(0, offset), matched=matched), 0, base + when
        )


async def test_signals_before_their_requests_and_in_reverse() -> None:
    """The order in which signals of different requests arrive changes nothing."""
    early = signals(*[(n, n, 0, n % 2 == 0) for n in reversed(range(8))])

    def ask_all(side: Side) -> None:
        for n in range(10):
            side.put(REQUESTS, replace(asked(n, side), recipe=""), 0)

    scene = Scene(
        YAML, [publish, early, ask_all, signals((9, 9, 1, True), (8, 8, 2, False))], ("signals.embedding",)
    )
    await same(scene)


async def test_duplicated_signals_and_decisions() -> None:
    """Of two SignalSets or Decisions the first in the log counts, even if the second says otherwise."""

    def contradict(side: Side) -> None:
        first = side.first(DECISIONS)
        assert isinstance(first, Decision)
        other = replace(first, core=replace(first.core, chosen="tiny", plan=first.core.plan[-1:]))
        side.put(DECISIONS, other, first.origin.partition)
        side.put(DECISIONS, first, first.origin.partition)

    twice = signals((0, 0, 1, True), (0, 0, 2, False), (0, 0, 1, True))
    request = lambda s: s.put(REQUESTS, replace(asked(0, s), recipe=""), 0)  # noqa: E731 - a step
    await same(Scene(YAML, [publish, request, twice, contradict], ("signals.embedding",)))


async def test_copies_of_a_request_at_two_origins() -> None:
    """A request that was admitted twice is decided at both origins and called once."""
    await same(Scene(YAML, [publish, ask(1, 3, 5), ask(1, 3), 100, ask(5, 7)]))


async def test_bytes_that_are_no_record() -> None:
    """Foreign bytes and records of another kind become dead letters; their neighbours are served."""

    def litter(side: Side) -> None:
        for topic in (REQUESTS, signals_topic("heuristics"), DECISIONS, jobs_topic("south")):
            side.append(topic, 0, b"key", b"not ours")
            side.append(topic, 0, None, b"")
        side.put(jobs_topic("south"), asked(3, side), 0)
        side.put(DECISIONS, asked(3, side), 0)

    await same(Scene(YAML, [publish, ask(0, 2), litter, ask(4, 8, 10)]))


async def test_a_request_that_no_signal_can_read() -> None:
    """A body sealed under a foreign key is a dead letter of each signal role, which still says `failed`."""

    def poison(side: Side) -> None:
        sealed = Body(3, b"", Sealed("k", "aes", b"", b"xyz"))
        for n in (1, 3, 5):
            side.put(REQUESTS, replace(asked(n, side), body=sealed) if n == 3 else asked(n, side), 1)

    await same(Scene(YAML, [publish, poison, ask(7)]))


async def test_a_decision_of_another_request_is_buried_by_dispatch() -> None:
    """A step that raises makes a dead letter of the request that it was about."""

    def mislead(side: Side) -> None:
        first = side.first(DECISIONS)
        assert isinstance(first, Decision)
        side.put(DECISIONS, replace(first, request_id=b"\x01" * 16, origin=Origin(0, 1)), 0)

    await same(Scene(YAML, [publish, ask(0), mislead, ask(2), ask(4)]))


async def test_a_classifier_that_is_down_for_a_while() -> None:
    """Its signals are `failed` while it is down, and the rules go on without."""

    def down(side: Side) -> None:
        side.classifier.down = True
        ask(*range(10, 20))(side)

    def up(side: Side) -> None:
        side.classifier.down = False
        ask(*range(20, 30))(side)

    await same(Scene(YAML, [publish, ask(*range(10)), down, 500, up]))


SCRIPTS = {
    "retry, then fall back, then answer": {"vendor/large": [Answer(500), Answer(503)]},
    "no answer": {"vendor/large": [TIMEOUT, TIMEOUT], "small": [TIMEOUT]},
    "no connection anywhere": {"vendor/large": [REFUSED] * 2, "small": [REFUSED] * 2, "tiny": [REFUSED] * 2},
    "refused for good": {"vendor/large": [Answer(400)]},
    "rate limited twice": {"vendor/large": [Answer(429, 0.2), Answer(429, 0.3)]},
    "rate limited past the deadline": {"vendor/large": [Answer(429, 30.0)]},
    "rate limited beyond what memory waits": {"vendor/large": [Answer(429, 14.0)]},
    "slowed down by the provider": {"vendor/large": [Answer(503, 0.4)]},
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_providers_that_fail(script: dict[str, list[Answer]]) -> None:
    """Retries, fallbacks, refusals, rate limits and deadlines: one plan of three models at two providers."""

    def break_it(side: Side) -> None:
        side.provider.scripts = script
        ask(0)(side)

    await same(Scene(YAML, [publish, break_it, 250, 350, 400, 1000, 1000, 30_000, ask(8)]))


LATE = {
    "after the other provider answered": ([Answer(-1, late=200), TIMEOUT], "advance"),
    "while the next attempt waits": ([Answer(-1, late=200), Answer(500)], "answered_late"),
    "as an error": ([Answer(-1, late=500), Answer(500)], "retry"),
}


@pytest.mark.parametrize(("script", "happens"), LATE.values(), ids=LATE)
async def test_answers_that_come_late(script: list[Answer], happens: str) -> None:
    """An answer after its call's timeout is recorded once, and closes what still waits for one."""

    def break_it(side: Side) -> None:
        side.provider.scripts = {"vendor/large": script}
        ask(0)(side)

    def let_it_come(side: Side) -> None:
        side.provider.let_late_answers_come()

    await same(Scene(YAML, [publish, break_it, 20, let_it_come, 1000, 1000, ask(8)]), happens)


async def test_lanes_that_pause_beside_others() -> None:
    """While one model is rate limited, jobs of it wait in tiers and another model of the provider answers."""

    def limited(side: Side) -> None:
        side.provider.scripts = {"small": [Answer(429, 9.0)]}
        for n in range(12):
            model = "tiny" if n % 2 else "small"
            request = request_of(side.policy, f"l{n}", "x", now=side.clock.now, model=model)
            side.put(REQUESTS, request, 0)

    await same(Scene(YAML, [publish, limited, 500, 2000, 7000, 1000, 1000, 1000]), "rate_limited")


async def test_a_circuit_that_opens_and_is_probed() -> None:
    """A model that fails every call is left alone for a while: the plan goes on without it."""

    def failing(side: Side) -> None:
        side.provider.scripts = {"vendor/large": [Answer(500)] * 30}

    def ask_one(n: int) -> Step:
        return lambda side: side.put(
            REQUESTS, request_of(side.policy, f"c{n}", TEXTS[0], now=side.clock.now), 0
        )

    steps: list[Step | int] = [publish, failing]
    for n in range(14):
        steps += [ask_one(n), 600]
    await same(Scene(YAML, [*steps, 5000, ask_one(99), 1000]), "circuit_open")


async def test_a_policy_that_is_not_known_at_first() -> None:
    """Requests stamped with a policy wait until it has been published; nobody decides by another one."""
    other = policy_of(OTHER_YAML)

    def strangers(side: Side) -> None:
        for n in (1, 3, 4):
            side.put(REQUESTS, request_of(other, f"s{n}", "rust and python", now=side.clock.now), n % 2)

    await same(Scene(YAML, [publish, ask(0, 1), strangers, ask(2), lambda s: s.publish(other)]))


async def test_an_inbox_of_good_and_bad_lines() -> None:
    """Foreign records are admitted under the active policy, or become dead letters with a reason."""
    lines = [
        b'{"messages": [{"role": "user", "content": "python please"}]}',
        b'{"custom_id": "a", "body": {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}}',
        b'{"model": "unheard-of", "messages": [{"role": "user", "content": "x"}]}',
        b"not json",
        b"",
    ]

    def post(side: Side) -> None:
        for line in lines:
            side.append(inbox_topic("json"), 0, b"k", line)

    await same(Scene(YAML, [post, publish, 100, post]))


@pytest.mark.parametrize("seed", range(6))
async def test_a_random_play(seed: int) -> None:
    """Whatever a seeded script does, in whatever order, both drivers say the same."""
    chance = random.Random(seed)
    steps: list[Step | int] = [publish]
    steps += [chance.choice(_TURNS)(chance, 100 * turn) for turn in range(8)]
    steps += [WAIT, WAIT]

    await same(Scene(YAML, steps, chance.choice([(), ("signals.embedding",)])))


def _some_requests(chance: random.Random, base: int) -> Step:
    return ask(*[base + n for n in range(chance.randint(1, 30))])


def _time(chance: random.Random, _base: int) -> int:
    return chance.choice([1, 500, 5000, WAIT])


def _litter(chance: random.Random, base: int) -> Step:
    topic = chance.choice([REQUESTS, signals_topic("embedding"), DECISIONS, jobs_topic("north")])
    return lambda side: side.append(
        topic, chance.randrange(2) if base < 0 else base // 100 % 2, b"k", b"\x00junk"
    )


def _toggle(_chance: random.Random, _base: int) -> Step:
    def step(side: Side) -> None:
        side.classifier.down = not side.classifier.down

    return step


def _repeat(chance: random.Random, _base: int) -> Step:
    topic, index = chance.choice([DECISIONS, signals_topic("heuristics"), REQUESTS]), chance.random()

    def step(side: Side) -> None:
        # The n-th record by content, since the two sides may have written them in different orders.
        found = sorted(side.envelopes(topic), key=lambda e: (e.partition, e.key or b"", e.value or b""))
        if found:
            chosen = found[int(index * len(found))]
            side.append(topic, chosen.partition, chosen.key, chosen.value or b"")

    return step


_TURNS = (_some_requests, _some_requests, _time, _litter, _toggle, _repeat)
