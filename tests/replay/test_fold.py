"""The fold runs the topology over records in memory, recorded or new, in virtual time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agents.dispatch import DEAD_LETTERED
from agents.policy import PolicyBook
from agents.providers import provider
from agents.retry import retry_stage
from agents.testing import (
    REFUSED,
    TIMEOUT,
    Answer,
    HashClassifier,
    ScriptedProvider,
    policy_of,
    request_of,
)
from agents.topology import (
    Stage,
    decision_stage,
    dispatch_stage,
    signal_stage,
    work_stage,
)
from replay.fold import Fold, Providers, VirtualClock
from replay.shelf import Shelf
from schemas.codec import Codec
from schemas.control import PolicyPublished
from schemas.envelope import Envelope
from schemas.identity import Origin
from schemas.request import Request
from schemas.signal import Observation, Observations, SignalSet

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, backend_refs: [{name: north}], pricing: {prompt_per_1m: 1.0, completion_per_1m: 2.0}}
    - {name: small, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python]}
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: maths
      priority: 2
      rules: {type: embedding, name: maths}
      modelRefs: [{model: large}, {model: small}]
    - {name: code, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: small}]}
deadlines: {request_s: 20, call_s: 2, attempts: 2}
"""
START = 1_790_000_000_000
POLICY = policy_of(YAML)
DECIDE_MS = 10_000


class World:
    """A fold of the whole topology with fakes outside."""

    def __init__(self, *, without: str = "", known: bool = True, partitions: int = 2) -> None:
        self.clock = VirtualClock(START)
        self.classifier = HashClassifier()
        self.provider = ScriptedProvider()
        self.codec = Codec()
        book = PolicyBook([POLICY] if known else [])
        stages: dict[str, Stage] = {
            "heuristics": signal_stage("heuristics", book, self.classifier, self.clock, classified=False),
            "embedding": signal_stage("embedding", book, self.classifier, self.clock, classified=True),
            "decision": decision_stage(("embedding", "heuristics"), book, partitions=partitions),
            "dispatch": dispatch_stage(),
            "north": work_stage("north"),
            "south": work_stage("south"),
            "retry": retry_stage(),
        }
        stages.pop(without, None)
        dialects = {name: provider["openai"]() for name in POLICY.provider_names}
        providers = Providers(self.provider, dialects)
        self.fold = Fold(list(stages.values()), self.codec, partitions, self.clock, book, providers)

    def ask(self, name: str, text: str, partition: int = 0) -> Request:
        """Append a request."""
        request = request_of(POLICY, name, text, now=self.clock.now)
        self.put("requests", request, partition)
        return request

    def put(self, topic: str, record: object, partition: int = 0, timestamp: int | None = None) -> None:
        """Append a record."""
        key = getattr(record, "request_id", b"")
        self.fold.append((topic, partition), key, self.codec.encode(record), (), timestamp)

    def kinds(self) -> list[str]:
        """Return what was emitted, as record names in order."""
        return [type(e.record).__name__ for e in self.fold.emitted]

    def results(self) -> list[tuple[int, str, str]]:
        """Return status, error code and model of every result."""
        found = [self.codec.decode(e.value) for e in self.fold.envelopes("results")]
        return [(r.status, r.error_code, r.model) for r in found]


def signal(request: Request, offset: int, *, matched: bool) -> SignalSet:
    """Return a SignalSet of the embedding role."""
    row = Observation("embedding", "maths", "", matched, 1.0, 1.0, "ok", "")
    rows = Observations.of([row])
    return SignalSet(request.request_id, Origin(0, offset), "embedding", POLICY.hash, "", rows, 0, 0)


async def test_one_request_passes_every_stage_in_order() -> None:
    """Signals, a decision, a job, the ledger around a call, a completion and its result."""
    world = World()
    world.ask("r", "solve this equation")
    await world.fold.run()

    assert world.kinds() == [
        "SignalSet",
        "SignalSet",
        "Decision",
        "Job",
        "AttemptStarted",
        "Completion",
        "Result",
        "AttemptEnded",
    ]
    assert world.results() == [(200, "", "large")]
    (completion,) = [e.record for e in world.fold.emitted if e.topic == "completions"]
    assert completion.cost_usd == pytest.approx((7 * 1.0 + 11 * 2.0) / 1_000_000)
    assert math.isnan(completion.ttft_ms)


async def test_the_same_input_gives_the_same_output_in_the_same_order() -> None:
    """Two folds over the same records emit equal bytes, record by record."""

    async def play() -> list[tuple[str, int, bytes]]:
        world = World()
        world.provider.scripts = {"large": [Answer(500), Answer(429, 0.5), TIMEOUT, REFUSED]}
        for n in range(50):
            world.ask(f"r{n}", ("solve this equation", "python", "hello")[n % 3], n % 2)
        await world.fold.finish()
        return [(e.topic, e.partition, world.codec.encode(e.record)) for e in world.fold.emitted]

    assert await play() == await play()


async def test_time_passes_only_when_it_is_let() -> None:
    """Without a signal nothing is decided until the clock passes `decide_by` and its grace."""
    world = World(without="embedding")
    world.ask("r", "python")
    await world.fold.run()
    assert world.fold.due() == START + DECIDE_MS + 1000
    world.clock.advance(DECIDE_MS + 999)
    await world.fold.run()
    assert "Decision" not in world.kinds()

    world.clock.advance(1)
    await world.fold.run()
    (decision,) = [e.record for e in world.fold.emitted if e.topic == "decisions"]
    assert decision.core.signals_missing == ("embedding:maths",)
    assert decision.meta.late_roles == ("embedding",)
    assert decision.meta.decided_at == START + DECIDE_MS + 1000
    with pytest.raises(ValueError, match="backwards"):
        world.clock.advance(-1)


async def test_finish_moves_the_clock_to_whatever_is_due() -> None:
    """Deadlines, rate limits and retries are waited for in no time at all."""
    world = World(without="embedding")
    world.provider.scripts = {"small": [Answer(429, 3.0), Answer(503, 0.25)]}
    world.ask("r", "python")
    await world.fold.finish()

    assert world.results() == [(200, "", "small")]
    assert world.clock.now == START + DECIDE_MS + 1000 + 3000 + 250
    assert world.fold.due() is None


@pytest.mark.parametrize(
    ("after_ms", "matched"),
    [(0, True), (DECIDE_MS, True), (DECIDE_MS + 1, False)],
    ids=["early", "just", "late"],
)
async def test_recorded_signals_count_by_their_log_timestamps(after_ms: int, *, matched: bool) -> None:
    """A signal that a log recorded replaces its role; its log timestamp says whether it was in time."""
    world = World(without="embedding")
    world.put("requests", other := request_of(POLICY, "other", "hello", now=START))
    request = world.ask("r", "hello")
    world.put("signals.embedding", signal(other, 0, matched=False))
    world.put("signals.embedding", signal(request, 1, matched=True), timestamp=START + after_ms)
    await world.fold.finish()

    decisions = {
        e.record.origin.offset: e.record.core.decision for e in world.fold.emitted if e.topic == "decisions"
    }
    assert decisions == {0: "", 1: "maths" if matched else ""}


async def test_a_recorded_log_keeps_its_offsets() -> None:
    """Envelopes of a log, with gaps in their offsets, are joined by the origins that they have there."""
    world = World(without="embedding")
    request = request_of(POLICY, "r", "hello", now=START)
    encode = world.codec.encode
    recorded = [
        Envelope("requests", 1, 40, START, b"k", encode(request)),
        Envelope("requests", 1, 47, START, b"k", encode(replace(request, request_id=b"1" * 16))),
    ]
    late = replace(signal(request, 47, matched=True), origin=Origin(1, 47), request_id=b"1" * 16)
    recorded.append(Envelope("signals.embedding", 1, 9, START, b"k", encode(late)))
    world.fold.load(recorded)
    await world.fold.finish()

    origins = {e.record.origin: e.record for e in world.fold.emitted if e.topic == "decisions"}
    assert set(origins) == {Origin(1, 40), Origin(1, 47)}
    assert ("embedding", 9) in [(i.role, i.offset) for i in origins[Origin(1, 47)].meta.inputs]
    with pytest.raises(ValueError, match="after 47"):
        world.fold.load(recorded[:1])


async def test_requests_wait_for_their_policy() -> None:
    """Nothing is observed or decided until the stamped policy has been published."""
    world = World(known=False)
    world.ask("r", "python")
    await world.fold.run()
    assert world.kinds() == []

    published = PolicyPublished(POLICY.hash, POLICY.normal_form, "test", START)
    world.put("control.policy", published)
    await world.fold.finish()
    assert world.results() == [(200, "", "small")]


async def test_a_recorded_ledger_is_obeyed() -> None:
    """A job whose attempt ended is not called again; one that may be under way waits for its timeout."""
    first = World(partitions=1)
    first.ask("a", "python")
    first.ask("b", "python")
    await first.fold.run()
    started, ended = (
        [
            e
            for e in first.fold.envelopes("attempts.south")
            if type(first.codec.decode(e.value)).__name__ == name
        ]
        for name in ("AttemptStarted", "AttemptEnded")
    )
    again = World(partitions=1)
    again.fold.load(first.fold.envelopes("jobs.south.batch"))
    # Both were started; only the first is known to have ended.
    ledger = [*started, ended[0]]
    again.fold.load([replace(e, offset=n) for n, e in enumerate(ledger)])
    await again.fold.run()
    assert again.provider.calls == []

    await again.fold.finish()
    assert again.clock.now == START + 2000 + 500
    assert [key for _, _, key in again.provider.calls] == [first.codec.decode(started[1].value).key]


async def test_what_cannot_be_read_is_a_dead_letter() -> None:
    """Foreign bytes are kept as they were, once for each stage that reads them; the next record is served."""
    world = World()
    world.fold.append(("requests", 0), b"k", b"not ours", [("h", b"v")])
    world.ask("r", "python")
    await world.fold.run()
    letters = [e.record for e in world.fold.emitted if e.topic == "dead-letters"]

    assert sorted(d.stage for d in letters) == [
        "decision",
        "dispatch",
        "signal.embedding",
        "signal.heuristics",
    ]
    assert {(d.offset, d.value, d.headers[0].key) for d in letters} == {(0, b"not ours", "h")}
    assert world.results() == [(200, "", "small")]


async def test_a_step_that_fails_is_a_dead_letter_and_nothing_waits() -> None:
    """The signals that a broken role owes are said to have failed."""
    world = World()
    world.classifier.poison = frozenset({"hello"})
    world.ask("a", "python")
    world.ask("b", "hello")
    await world.fold.run()

    (letter,) = [e.record for e in world.fold.emitted if e.topic == "dead-letters"]
    assert (letter.stage, letter.offset) == ("signal.embedding", 1)
    reasons = [e.record.observations.reason for e in world.fold.emitted if e.topic == "signals.embedding"]
    assert reasons == [("",), (DEAD_LETTERED,)]
    assert world.results() == [(200, "", "small"), (200, "", "small")]


def test_a_fold_that_would_call_needs_providers() -> None:
    """A work stage without its port is refused at once."""
    with pytest.raises(ValueError, match="give the fold its providers"):
        Fold([work_stage("north")], Codec(), 1, VirtualClock(START), PolicyBook())


def test_a_shelf_finds_records_by_their_offsets() -> None:
    """Gaps are passed over; what is not there is not found."""
    shelf = Shelf(2)
    for offset in (3, 5, 9):
        shelf.place(Envelope("requests", 0, offset, START, None, b"%d" % offset))

    assert [e.offset for e in shelf.after(("requests", 0), 4, 10)] == [5, 9]
    assert (shelf.begin(("requests", 0)), shelf.end(("requests", 0))) == (3, 10)
    assert shelf.at(("requests", 0), 5).value == b"5"
    with pytest.raises(KeyError):
        shelf.at(("requests", 0), 4)
    assert (shelf.partitions("requests"), shelf.partitions("control.policy")) == (2, 1)
