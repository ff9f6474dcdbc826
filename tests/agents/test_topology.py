"""The topology as a value: its stages, what each emits and where, and every plugin in its place."""

from dataclasses import replace
from types import ModuleType
from typing import Any, Literal

import pytest

import agents.providers
import agents.selectors
import agents.signals
from agents.admission import Admission
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from agents.errors import InvalidRecord, PolicyMissing, Refused
from agents.gather import NO_ORIGIN, Gather, Gathered, Part
from agents.ledger import ended, started
from agents.policy import PolicyBook
from agents.providers import provider
from agents.registry import DuplicatePluginError, PluginConfig, Registry
from agents.selectors import selector
from agents.signals import Classified, signal
from agents.testing import HashClassifier
from agents.topology import (
    WINDOW,
    JoinStage,
    MapStage,
    admission_stage,
    decision_stage,
    dispatch_stage,
    emit_for,
    gather_for,
    job_emit,
    signal_stage,
    unplaced,
    work_stage,
)
from agents.work import expired
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.identity import Origin, partition_for
from schemas.job import Job
from schemas.request import Request
from schemas.signal import Observations, SignalSet
from schemas.topics import (
    DECISIONS,
    REQUESTS,
    RESULTS,
    attempts_topic,
    inbox_topic,
    jobs_topic,
    signals_topic,
)
from tests.agents.samples import NOW, decision, job, observation, policy, request

UNDER = policy()
BOOK = PolicyBook([UNDER])
ASKED = request("urgent", under=UNDER)
LINE = b'{"messages": [{"role": "user", "content": "hi"}]}'


def envelope(topic: str, offset: int = 7, value: bytes | None = None) -> Envelope:
    """Return a record of *topic* in partition 3."""
    return Envelope(topic, 3, offset, NOW, ASKED.request_id, value)


def heuristics(*, matched: bool = True) -> SignalSet:
    """Return the SignalSet of the heuristics about the sample request."""
    seen = Observations.of([observation("keyword", "urgent", matched=matched)])
    return SignalSet(ASKED.request_id, Origin(3, 7), "heuristics", UNDER.hash, "", seen, NOW // 1000, 5)


def signals_of(role: str) -> MapStage:
    """Return the stage of signal *role*."""
    classified = role == "embedding"
    return signal_stage(role, BOOK, HashClassifier(), lambda: NOW * 1000, classified=classified)


async def test_admission_turns_foreign_records_into_requests() -> None:
    """A request goes to the partition of its id, under the policy that is active now."""
    stage = admission_stage("json", lambda: Admission(UNDER, "acme", NOW), "cluster", 12)
    [[emit]] = await stage.step([(envelope("inbox.json", value=LINE), None)])

    assert (stage.role, stage.source, stage.accepts, stage.chunk) == (
        "admission",
        inbox_topic("json"),
        None,
        1,
    )
    assert emit.topic == REQUESTS
    assert emit.key == emit.record.request_id
    assert emit.partition == partition_for(emit.record.request_id, 12)
    assert stage.on_failure(envelope("inbox.json"), None) == ()


@pytest.mark.parametrize("value", [None, b"", b"{"])
async def test_a_foreign_record_that_is_refused_raises(value: bytes | None) -> None:
    """A refusal is an error of the record alone, which its driver makes a dead letter."""
    stage = admission_stage("json", lambda: Admission(UNDER, "acme", NOW), "cluster", 12)

    with pytest.raises(Refused):
        await stage.step([(envelope("inbox.json", value=value), None)])


@pytest.mark.parametrize("role", ["heuristics", "embedding"])
async def test_a_signal_role_emits_beside_its_origin(role: str) -> None:
    """A set goes to the role's topic in the request's partition; a request without demand causes nothing."""
    stage = signals_of(role)
    lab = request("hi", under=UNDER, model="lab-model")
    emits = await stage.step([(envelope(REQUESTS), ASKED), (envelope(REQUESTS, 8), lab)])

    assert (stage.source, stage.accepts, stage.role) == (REQUESTS, Request, f"signals.{role}")
    assert [len(of) for of in emits] == [1, 0]
    assert (emits[0][0].topic, emits[0][0].partition) == (signals_topic(role), 3)
    assert emits[0][0].record.origin == Origin(3, 7)


def test_a_dead_lettered_request_still_gets_its_failed_signals() -> None:
    """So nothing waits for what a signal role could not do."""
    [emit] = signals_of("heuristics").on_failure(envelope(REQUESTS), ASKED)

    assert set(emit.record.observations.status) == {"failed"}


def test_a_role_starts_less_than_the_window_at_once() -> None:
    """The chunks that may be in flight together span less than the gather's window."""
    for role in ("heuristics", "embedding"):
        stage = signals_of(role)
        assert stage.chunk * stage.concurrency < WINDOW


def test_the_decision_stage_demands_what_the_policy_demands() -> None:
    """A request arrives with its demanded topics and deadline, without its body; a set at its origin."""
    stage = decision_stage(["embedding", "heuristics"], BOOK, partitions=6)
    arrival = stage.arrive(REQUESTS, envelope(REQUESTS), ASKED)
    signals = stage.arrive(
        signals_topic("heuristics"), envelope(signals_topic("heuristics"), 99), heuristics()
    )

    assert stage.inputs == (signals_topic("embedding"), signals_topic("heuristics"))
    assert stage.accepts == (Request, SignalSet, SignalSet)
    assert arrival.demanded == stage.inputs
    assert (arrival.offset, arrival.origin, arrival.decide_by) == (7, 7, ASKED.decide_by)
    assert not hasattr(arrival.record, "body")
    assert (signals.offset, signals.origin, signals.timestamp) == (99, 7, NOW)
    with pytest.raises(PolicyMissing):
        decision_stage(["heuristics"], PolicyBook(), partitions=6).arrive(REQUESTS, envelope(REQUESTS), ASKED)


def gathered(stage: JoinStage) -> Gathered:
    """Return the sample request with the heuristics' set, the embedding's being late."""
    arrived = stage.arrive(REQUESTS, envelope(REQUESTS), ASKED)
    part = Part(99, NOW, heuristics())
    return Gathered(7, arrived.record, {signals_topic("heuristics"): part}, (signals_topic("embedding"),))


def test_a_decision_names_what_it_was_made_of() -> None:
    """Its meta holds the offset of each set used, who was late, and how long the request waited."""
    stage = decision_stage(["embedding", "heuristics"], BOOK, partitions=6)
    [emit] = stage.step(stage.state(), 3, gathered(stage), NOW + 20)
    made: Decision = emit.record

    assert (emit.topic, emit.partition, emit.key) == (DECISIONS, 3, ASKED.request_id)
    assert made.origin == Origin(3, 7)
    assert [(i.role, i.offset) for i in made.meta.inputs] == [("heuristics", 99)]
    assert (made.meta.late_roles, made.meta.decided_at, made.meta.waited_ms) == (("embedding",), NOW + 20, 20)
    assert made.core.decision == "split"
    assert made.core.facts.get("requested_model") == "auto"


def test_a_decision_that_died_says_so_at_its_origin() -> None:
    """Dispatch then has a decision for the origin, and waits for none."""
    stage = decision_stage(["embedding", "heuristics"], BOOK, partitions=6)
    [emit] = stage.on_failure(stage.state(), 3, gathered(stage), NOW)

    assert emit.record.core.failure == DEAD_LETTERED
    assert emit.record.origin == Origin(3, 7)


def test_dispatch_waits_for_a_decision_until_the_request_is_of_no_use() -> None:
    """A request demands `decisions` and nothing else, up to its own deadline, and keeps its body."""
    stage = dispatch_stage()
    arrival = stage.arrive(REQUESTS, envelope(REQUESTS), ASKED)

    assert (arrival.demanded, arrival.decide_by) == ((DECISIONS,), ASKED.deadline)
    assert arrival.record is ASKED
    assert stage.arrive(DECISIONS, envelope(DECISIONS, 5), decision(ASKED, Origin(3, 7))).origin == 7


def test_dispatch_acts_on_the_first_decision_only() -> None:
    """The first decision of a request in the log becomes a job; a copy at another origin causes nothing."""
    stage = dispatch_stage()
    state = stage.state()
    made = [decision(ASKED, Origin(3, 7)), decision(ASKED, Origin(3, 8))]
    for offset, copy in enumerate(made):
        stage.note(state, envelope(DECISIONS, offset), copy)
    stage.note(state, envelope(REQUESTS), ASKED)
    both = [Gathered(7 + n, ASKED, {DECISIONS: Part(n, NOW, copy)}, ()) for n, copy in enumerate(made)]
    [emit] = stage.step(state, 3, both[0], NOW)

    assert isinstance(emit.record, Job)
    assert (emit.topic, emit.partition) == (jobs_topic("north"), 3)
    assert stage.step(state, 3, both[1], NOW) == ()


def test_a_request_that_nobody_decided_in_time_ends_with_an_error() -> None:
    """Past its deadline it gets a Result; before that, a decision that cannot be read is a failure."""
    stage = dispatch_stage()
    nothing = Gathered(7, ASKED, {}, (DECISIONS,))
    [emit] = stage.step(stage.state(), 3, nothing, ASKED.deadline + 1)

    assert (emit.topic, emit.record.status, emit.record.error_code) == (RESULTS, 504, "deadline_exceeded")
    with pytest.raises(InvalidRecord, match="cannot be read"):
        stage.step(stage.state(), 3, nothing, ASKED.deadline)


def test_a_decision_that_could_not_be_dispatched_is_taken_back() -> None:
    """Whoever is decided after a failed dispatch counts as first, as a redriven request is."""
    stage = dispatch_stage()
    state = stage.state()
    first = decision(ASKED, Origin(3, 7))
    [back] = stage.on_failure(stage.state(), 3, Gathered(7, ASKED, {DECISIONS: Part(0, NOW, first)}, ()), NOW)
    again = decision(ASKED, Origin(3, 9))
    for offset, record in enumerate((first, back.record, again)):
        stage.note(state, envelope(DECISIONS, offset), record)

    assert (back.topic, back.record.core.failure, back.record.origin) == (DECISIONS, TAKEN_BACK, Origin(3, 7))
    assert stage.step(state, 3, Gathered(7, ASKED, {DECISIONS: Part(1, NOW, back.record)}, ()), NOW) == ()
    [emit] = stage.step(state, 3, Gathered(9, ASKED, {DECISIONS: Part(2, NOW, again)}, ()), NOW)
    assert isinstance(emit.record, Job)


@pytest.mark.parametrize("stage", [dispatch_stage(), decision_stage(["heuristics"], BOOK, partitions=6)])
def test_a_derived_record_of_another_partition_is_no_part(stage: JoinStage) -> None:
    """An origin in another partition, or before the first offset, breaks the contract."""
    source = stage.inputs[0]
    record = decision(ASKED, Origin(2, 7)) if source == DECISIONS else heuristics()
    for origin in (Origin(2, 7), Origin(3, -1)):
        with pytest.raises(InvalidRecord, match="another partition"):
            stage.arrive(source, envelope(source), replace(record, origin=origin))


def test_every_record_of_the_pipeline_has_a_topic() -> None:
    """Records with an origin go to the topic of their kind, in the origin's partition."""
    bound: list[tuple[Any, str]] = [
        (heuristics(), signals_topic("heuristics")),
        (decision(ASKED, Origin(3, 7)), DECISIONS),
        (job(origin=Origin(3, 7)), jobs_topic("north")),
        (started(job(origin=Origin(3, 7)), "w", 0, NOW), attempts_topic("north")),
        (ended(job(origin=Origin(3, 7)), "w", NOW, "ok", (200, "")), attempts_topic("north")),
        (expired(job(origin=Origin(3, 7)), "w", NOW).emits[0], RESULTS),
    ]
    for record, topic in bound:
        emit = emit_for(record)
        assert (emit.topic, emit.partition, emit.key) == (topic, 3, record.request_id)
    assert job_emit(job()) == emit_for(job())


def test_a_work_stage_names_its_topics() -> None:
    """The worker of a provider reads its jobs and keeps its ledger."""
    stage = work_stage("north")

    assert (stage.role, stage.source, stage.ledger) == (
        "provider.north",
        jobs_topic("north"),
        attempts_topic("north"),
    )


def test_a_gather_starts_where_its_stage_left_off() -> None:
    """The stage's inputs and window, the committed offsets and the decided origins make a gather."""
    gather = gather_for(decision_stage(["heuristics"], BOOK, window=5, partitions=6), {REQUESTS: 12}, (12,))

    assert isinstance(gather, Gather)
    assert (gather.window, gather.low) == (5, 12)
    assert unplaced(envelope(REQUESTS)).origin == NO_ORIGIN


@pytest.mark.parametrize(
    ("registry", "package"),
    [(signal, agents.signals), (selector, agents.selectors), (provider, agents.providers)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_plugin_is_found_named_and_described(registry: Registry[Any], package: ModuleType) -> None:
    """Loading twice is loading once; a plugin's key is its type, and its class has a docstring and a home."""
    registry.load(package)
    registry.load(package)
    ours = {name: cls for name, cls in registry if cls.__module__.startswith("agents.")}

    assert ours
    for name, cls in ours.items():
        assert name in registry
        assert registry[name] is cls
        assert cls.model_fields["type"].default == name
        assert cls.__doc__
        assert cls.__module__ == f"{package.__name__}.{name}"
    assert registry.adapter()


def test_every_signal_role_has_a_stage() -> None:
    """Each role of a registered signal can be built, classified or not."""
    for _, cls in signal:
        stage = signal_stage(
            cls.role, BOOK, HashClassifier(), lambda: 0, classified=issubclass(cls, Classified)
        )
        assert stage.name == f"signal.{cls.role}"


def test_two_plugins_of_one_name_are_an_error() -> None:
    """A name that is taken is refused at import, naming both kind and name."""
    registry: Registry[PluginConfig] = Registry("things")

    class One(PluginConfig):
        type: Literal["one"] = "one"

    registry(One)
    with pytest.raises(DuplicatePluginError, match="things 'one'"):
        registry(One)


def test_a_misspelt_plugin_is_told_what_there_is() -> None:
    """The adapter of a registry names the types that it knows."""
    policy()
    with pytest.raises(ValueError, match="weighted"):
        selector.adapter().validate_python([{"type": "wieghted"}])
