"""The topology as a value: stages, each a name, its sources and a pure step that returns what to emit.

Two drivers run it: the Faust host in `streams/` and the fold in `replay/`. Four kinds of stage: a
`MapStage` turns records of one topic into others, a `JoinStage` gathers by origin first, a `WorkStage`
calls a provider under the ledger, a `RetryStage` returns what waits when it is due. Time comes in as
an argument or as the `Clock` port.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.admission import Admission, partition_key, read_foreign
from agents.decision import Sets, decide, facts_of, failed
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK, FirstDecisions, conflict, dispatch, undecided
from agents.errors import InvalidRecord
from agents.exploration import Account
from agents.gather import LOST, NO_ORIGIN, Arrival, Gather, Gathered
from agents.observe import Clock, Observer
from agents.policy import Policy, PolicyBook
from agents.ports import Infer
from agents.shadow import shadow_core
from schemas.decision import Decision, DecisionMeta, Input
from schemas.envelope import Envelope
from schemas.identity import Origin, partition_for
from schemas.job import Job
from schemas.request import Request
from schemas.signal import SignalSet
from schemas.topics import (
    DECISIONS,
    REQUESTS,
    RESULTS,
    SHADOW_DECISIONS,
    attempts_topic,
    inbox_topic,
    jobs_topic,
    signals_topic,
)

WINDOW = 1024
HORIZON_MS = 24 * 3600 * 1000
SEEN_LIMIT = 500_000
BEHIND_THE_LAST = "its origin lies behind the last request"


@dataclass(frozen=True, slots=True)
class Emit:
    """A record bound for a topic (logical name) and partition."""

    topic: str
    partition: int
    key: bytes
    record: Any


def emit_for(record: Any) -> Emit:  # noqa: ANN401 - any record with an origin
    """Return *record*, which carries an origin, bound for its topic in the origin's partition."""
    topic = _TOPIC_OF[type(record).__name__](record)
    return Emit(topic, record.origin.partition, record.request_id, record)


_TOPIC_OF: dict[str, Callable[[Any], str]] = {
    "SignalSet": lambda r: signals_topic(r.role),
    "Decision": lambda _: DECISIONS,
    "Job": lambda r: jobs_topic(r.provider),
    "AttemptStarted": lambda r: attempts_topic(r.provider),
    "AttemptEnded": lambda r: attempts_topic(r.provider),
    "Completion": lambda _: "completions",
    "Result": lambda _: RESULTS,
}


@dataclass(frozen=True, slots=True)
class MapStage:
    """Records of one topic, in chunks of at most `chunk`, to what each causes, aligned.

    `accepts` is the record class that values are decoded to, None for foreign bytes. `on_failure`
    says what a record that became a dead letter must still emit, so that nothing waits for it. The
    newest record in flight is less than `span` offsets from the oldest one of its partition. A stage
    that `looks_at_bodies` is given requests whose claimed bodies its driver has fetched.
    """

    name: str
    role: str
    source: str
    accepts: type | None
    step: Callable[[Sequence[tuple[Envelope, Any]]], Awaitable[list[tuple[Emit, ...]]]]
    on_failure: Callable[[Envelope, Any], tuple[Emit, ...]]
    chunk: int = 64
    concurrency: int = 1
    span: int = WINDOW // 2
    looks_at_bodies: bool = False


@dataclass(frozen=True, slots=True)
class JoinStage:
    """`requests` joined with other topics by origin. `arrive` places a decoded record.

    `reads_back` names the role's own output that is read on assignment; `step` may return no
    emit. `state` makes the per-partition state that `note`, `step` and `on_failure` share.
    """

    name: str
    role: str
    inputs: tuple[str, ...]
    accepts: tuple[type, ...]
    arrive: Callable[[str, Envelope, Any], Arrival]
    step: Callable[[Any, int, Gathered, int], tuple[Emit, ...]]
    on_failure: Callable[[Any, int, Gathered, int], tuple[Emit, ...]]
    state: Callable[[], Any]
    note: Callable[[Any, Envelope, Any], None]
    reads_back: str
    horizon_ms: int
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class WorkStage:
    """Jobs of one provider, called under the ledger in topic `ledger`."""

    name: str
    role: str
    source: str
    ledger: str
    provider: str


@dataclass(frozen=True, slots=True)
class RetryStage:
    """The retry tiers: each record goes back where it belongs when it is due (`agents.retry`)."""

    name: str
    role: str
    sources: tuple[str, ...]


Stage = MapStage | JoinStage | WorkStage | RetryStage


CheckIn = Callable[[Request], Awaitable[Request]]
"""Keep what of a request is too large for a record elsewhere; the request that says where."""


async def _as_it_is(request: Request) -> Request:
    return request


def admission_stage(
    source: str,
    active: Callable[[], Admission],
    cluster: str,
    partitions: int,
    check_in: CheckIn = _as_it_is,
) -> MapStage:
    """Return the stage that admits foreign records of `inbox.<source>`; refusals are dead letters."""

    async def step(chunk: Sequence[tuple[Envelope, Any]]) -> list[tuple[Emit, ...]]:
        admission = active()
        out: list[tuple[Emit, ...]] = []
        for envelope, _ in chunk:
            place = (envelope.topic, envelope.partition, envelope.offset)
            request = await check_in(admission.inbox(read_foreign(envelope.value or b""), cluster, place))
            partition = partition_for(partition_key(request), partitions)
            out.append((Emit(REQUESTS, partition, request.request_id, request),))
        return out

    return MapStage(
        f"admission.{source}", "admission", inbox_topic(source), None, step, lambda _e, _r: (), chunk=1
    )


def signal_stage(role: str, book: PolicyBook, infer: Infer, clock: Clock, *, classified: bool) -> MapStage:
    """Return the stage of one signal role."""
    observer = Observer(role, book, infer, clock)

    async def step(chunk: Sequence[tuple[Envelope, Request]]) -> list[tuple[Emit, ...]]:
        sets = await observer.observe(
            [(request, Origin(envelope.partition, envelope.offset)) for envelope, request in chunk]
        )
        return [() if found is None else (emit_for(found),) for found in sets]

    def on_failure(envelope: Envelope, request: Request) -> tuple[Emit, ...]:
        found = observer.failed(request, Origin(envelope.partition, envelope.offset), "dead_lettered")
        return () if found is None else (emit_for(found),)

    size, parallel = (16, 4) if classified else (256, 1)
    return MapStage(
        f"signal.{role}",
        f"signals.{role}",
        REQUESTS,
        Request,
        step,
        on_failure,
        size,
        parallel,
        looks_at_bodies=True,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the decision needs of a request; its body is not kept while signals are awaited."""

    request_id: bytes
    policy_hash: str
    recipe: str
    requested_model: str
    accepted_at: int
    key_id: bytes | None = None


def _no_shadow() -> Policy | None:
    return None


def _demanded(book: PolicyBook, request: Request) -> tuple[str, ...]:
    """Return the topics of the signals that the stamped policy demands; raises `PolicyMissing`."""
    try:
        demand = book[request.policy_hash].demand(request.recipe)
    except KeyError:
        return ()  # no such recipe: the step fails, and the request is buried there
    return tuple(signals_topic(role) for role in sorted(demand))


def _beside(made: Emit, shadow: Policy | None, stamped: Policy, sets: Sets) -> Iterator[Emit]:
    """Yield what *shadow* says to the request of decision *made*, by the same signals."""
    if shadow is not None:
        core = shadow_core(shadow, stamped, made.record, sets)
        yield replace(made, topic=SHADOW_DECISIONS, record=replace(made.record, core=core))


def _sets(gathered: Gathered, request_id: bytes) -> Sets:
    """Return the gathered signals by role; raises `InvalidRecord` for those of another request."""
    if any(part.record.request_id != request_id for part in gathered.parts.values()):
        message = "signals at this origin are of another request"
        raise InvalidRecord(message)
    return [(part.record.role, part.record) for part in gathered.parts.values()]


def decision_stage(
    roles: Sequence[str],
    book: PolicyBook,
    window: int = WINDOW,
    shadow: Callable[[], Policy | None] = _no_shadow,
    *,
    partitions: int,
) -> JoinStage:
    """Return the stage that gathers the demanded signals of each request and decides.

    What *shadow* returns at that moment decides too, after the decision, into a topic of its own.
    Each of the *partitions* of `requests` has an equal share of what exploring may cost.
    """
    inputs = tuple(signals_topic(role) for role in roles)

    def arrive(source: str, envelope: Envelope, record: Any) -> Arrival:  # noqa: ANN401 - decoded
        if source != REQUESTS:
            found = _derived(envelope, record)
            # What nobody demands is no part of any request here: it is passed over, not late. The role's own
            # decisions come through here too, when it reads back what it wrote.
            beside = isinstance(record, SignalSet) and record.only_shadow
            return replace(found, origin=NO_ORIGIN) if beside else found
        asked, demanded, until = _asked(record), _demanded(book, record), record.decide_by
        return Arrival(envelope.offset, envelope.timestamp, envelope.offset, asked, demanded, until)

    def step(account: Account, partition: int, gathered: Gathered, now: int) -> tuple[Emit, ...]:
        asked: _Asked = gathered.request
        sets = _sets(gathered, asked.request_id)
        policy = book[asked.policy_hash]
        facts = facts_of(asked.requested_model, account.fact(policy, now))
        core = decide(policy, recipe=asked.recipe, request_id=asked.request_id, sets=sets, facts=facts)
        account.charge(core)
        used = tuple(Input(part.record.role, part.offset) for part in gathered.parts.values())
        late = tuple(source.removeprefix("signals.") for source in gathered.late)
        meta = DecisionMeta(used, now, now - asked.accepted_at, late, account.spent)
        origin = Origin(partition, gathered.origin)
        made = emit_for(Decision(asked.request_id, origin, core, meta, asked.key_id))
        return (made, *_beside(made, shadow(), policy, sets))

    def on_failure(account: Account, partition: int, gathered: Gathered, now: int) -> tuple[Emit, ...]:
        asked: _Asked = gathered.request
        core = failed(asked.policy_hash, asked.recipe, DEAD_LETTERED)
        account.at(now)
        meta = DecisionMeta((), now, now - asked.accepted_at, (), account.spent)
        return (emit_for(Decision(asked.request_id, Origin(partition, gathered.origin), core, meta)),)

    return JoinStage(
        "decision",
        "decision",
        inputs,
        (Request, *[SignalSet] * len(inputs)),
        arrive,
        step,
        on_failure,
        lambda: Account(partitions),
        lambda account, _envelope, record: account.note(record),
        DECISIONS,
        0,
        window,
    )


def dispatch_stage(window: int = WINDOW) -> JoinStage:
    """Return the stage that reads the first Decision of each request back and emits its job."""

    def arrive(source: str, envelope: Envelope, record: Any) -> Arrival:  # noqa: ANN401 - decoded
        if source == REQUESTS:
            # Past its deadline a request ends undecided: nothing waits for ever, whatever was lost.
            demanded, deadline = (DECISIONS,), record.deadline
            return Arrival(envelope.offset, envelope.timestamp, envelope.offset, record, demanded, deadline)
        return _derived(envelope, record)

    def note(state: FirstDecisions, envelope: Envelope, record: object) -> None:
        if isinstance(record, Decision):
            state.note(record, envelope.offset, envelope.timestamp)

    def step(state: FirstDecisions, partition: int, gathered: Gathered, now: int) -> tuple[Emit, ...]:
        part = gathered.parts.get(DECISIONS)
        if part is None:
            return (emit_for(undecided(gathered.request, Origin(partition, gathered.origin), now)),)
        if not state.is_first(part.record, part.offset):
            return ()
        if state.is_conflict(part.record):
            return (emit_for(conflict(gathered.request, part.record, now)),)
        caused = dispatch(gathered.request, part.record, now)
        return () if caused is None else (emit_for(caused),)

    def on_failure(_: FirstDecisions, partition: int, gathered: Gathered, now: int) -> tuple[Emit, ...]:
        # What was decided is taken back, so that a redriven request can be decided anew.
        request: Request = gathered.request
        core = failed(request.policy_hash, request.recipe, TAKEN_BACK)
        meta = DecisionMeta((), now, now - request.accepted_at)
        return (emit_for(Decision(request.request_id, Origin(partition, gathered.origin), core, meta)),)

    return JoinStage(
        "dispatch",
        "dispatch",
        (DECISIONS,),
        (Request, Decision),
        arrive,
        step,
        on_failure,
        lambda: FirstDecisions(SEEN_LIMIT, HORIZON_MS),
        note,
        DECISIONS,
        HORIZON_MS,
        window,
    )


def work_stage(provider: str) -> WorkStage:
    """Return the stage that calls *provider*."""
    role = f"provider.{provider}"
    return WorkStage(role, role, jobs_topic(provider), attempts_topic(provider), provider)


def job_emit(job: Job) -> Emit:
    """Return *job* bound for its provider's topic."""
    return emit_for(job)


def gather_for(stage: JoinStage, start: dict[str, int], decided: Sequence[int] = ()) -> Gather:
    """Return the gather of one partition of *stage*, from the committed offsets in *start*."""
    return Gather(stage.inputs, stage.window, start, decided)


def _asked(request: Request) -> _Asked:
    return _Asked(
        request.request_id,
        request.policy_hash,
        request.recipe,
        request.requested_model,
        request.accepted_at,
        _key_id(request),
    )


def _key_id(request: Request) -> bytes | None:
    return None if request.idempotency_key is None else partition_key(request)


def _derived(envelope: Envelope, record: Any) -> Arrival:  # noqa: ANN401 - decoded, of some class with an origin
    origin = record.origin
    if origin.partition != envelope.partition or origin.offset < 0:
        message = "its origin is of another partition"
        raise InvalidRecord(message)
    return Arrival(envelope.offset, envelope.timestamp, origin.offset, record)


def missing(envelope: Envelope, origin: int) -> Arrival:
    """Return the arrival of an unreadable record whose key says that it belongs to *origin*."""
    return Arrival(envelope.offset, envelope.timestamp, origin, LOST)


def unplaced(envelope: Envelope) -> Arrival:
    """Return the arrival of a record that could not be decoded: it belongs to no origin."""
    return Arrival(envelope.offset, envelope.timestamp, NO_ORIGIN, None)
