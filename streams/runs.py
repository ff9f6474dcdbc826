"""What the log says of a run: when it was opened, what was submitted, what has come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agents.topology import HORIZON_MS
from schemas.codec import Codec, UndecodableError
from schemas.completion import Result
from schemas.control import RunOpened, RunSubmitted
from schemas.dead_letter import DeadLetter, LetterClosed
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.topics import CONTROL_EVENTS, DEAD_LETTERS, REQUESTS, RESULTS
from streams.log import TP, Log

SUCCESS = range(200, 300)
"""Statuses that mean an answer."""


@dataclass(slots=True)
class Outcome:
    """How one request of a run ended: its effective result, or the dead letters it became.

    Letters are kept without their bodies, by partition and offset, until they are closed.
    """

    result: Result | None = None
    letters: dict[tuple[int, int], DeadLetter] = field(default_factory=dict)

    @property
    def dead(self) -> DeadLetter | None:
        """Return the first letter that nobody closed."""
        return next(iter(self.letters.values()), None)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes unless somebody redrives it."""
        return self.result is not None or bool(self.letters)


@dataclass(slots=True)
class RunView:
    """A run as the log has it; positions are where its records may begin."""

    opened: RunOpened
    submitted: RunSubmitted | None = None
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    shared: set[bytes] = field(default_factory=set)
    """Requests with an idempotency key, which another run may have asked, and been answered, before."""

    def positions(self, topic: str) -> dict[TP, int]:
        """Return where *topic* ended when the run was opened."""
        return {(p.topic, p.partition): p.offset for p in self.opened.positions if p.topic == topic}


async def find_run(log: Log, codec: Codec, run: str, tenant: str | None = None) -> RunView | None:
    """Return the run of that name (of *tenant*, if given), or None."""
    view: RunView | None = None
    async for envelope in log.read(await log.begins([(CONTROL_EVENTS, 0)])):
        record = decoded(codec, envelope.value)
        if isinstance(record, RunOpened | RunSubmitted) and record.run == run:
            # Two tenants may use one name; without a tenant the run that was opened first is meant.
            if record.tenant != (tenant or (view.opened.tenant if view else record.tenant)):
                continue
            if isinstance(record, RunOpened):
                view = view or RunView(record)
            elif view is not None:
                view.submitted = record
    return view


async def requests_in_log(log: Log, codec: Codec, view: RunView) -> dict[bytes, bytes]:
    """Return id -> digest of the body, of the run's requests that the log already holds."""
    found: dict[bytes, bytes] = {}
    async for envelope in log.read(view.positions(REQUESTS)):
        record = decoded(codec, envelope.value)
        if isinstance(record, Request) and _is_of(record, view):
            found.setdefault(record.request_id, record.body.digest)
    return found


async def ends_of(log: Log) -> Iterable[tuple[str, int, int]]:
    """Return (topic, partition, end) of the topics that a run is followed in."""
    tps = [(t, p) for t in (REQUESTS, RESULTS, DEAD_LETTERS) for p in range(await log.partitions(t))]
    return [(topic, p, end) for (topic, p), end in (await log.ends(tps)).items()]


async def follow(log: Log, codec: Codec, view: RunView, wanted: set[bytes], progress: Any = None) -> None:
    """Read results and dead letters until each of *wanted* has ended; fills ``view.outcomes``.

    What was dead-lettered and redriven is under way again: dead letters are read to where they end now
    before any of them counts, for what closes one lies behind it.
    """
    open_ids = set(wanted) - {i for i, o in view.outcomes.items() if o.result is not None}
    if not open_ids:
        return
    letters = view.positions(DEAD_LETTERS)
    async for envelope in log.read(dict(letters)):
        letters[DEAD_LETTERS, envelope.partition] = envelope.offset + 1
        take(codec, view, envelope)
    open_ids -= {i for i, o in view.outcomes.items() if o.ended}
    told = _tell(progress, len(wanted) - len(open_ids), 0)
    if not open_ids:
        return
    results = view.positions(RESULTS)
    if view.shared:
        results = dict(await log.begins(list(results)))
    async for envelope in log.read({**results, **letters}, follow=True):
        request_id = take(codec, view, envelope)
        if request_id not in wanted:
            continue
        if view.outcomes[request_id].ended:
            open_ids.discard(request_id)
        else:
            open_ids.add(request_id)
        told = _tell(progress, len(wanted) - len(open_ids), told)
        if not open_ids:
            return


def _tell(progress: Any, ended: int, told: int) -> int:
    """Tell *progress* how many have ended if that is news, and return it."""
    if progress is not None and ended != told:
        progress(ended)
    return ended


async def collect(log: Log, codec: Codec, view: RunView) -> None:
    """Read what has come back so far; fills ``view.outcomes``."""
    async for envelope in log.read({**view.positions(RESULTS), **view.positions(DEAD_LETTERS)}):
        take(codec, view, envelope)
    dead = [request_id for request_id, outcome in view.outcomes.items() if outcome.result is None]
    if dead:
        # A dead letter does not say of which run it is; the requests do.
        own = await requests_in_log(log, codec, view)
        for request_id in dead:
            if request_id not in own:
                del view.outcomes[request_id]


def take(codec: Codec, view: RunView, envelope: Envelope) -> bytes | None:
    """Note one record of `results` or `dead-letters`; return the id of the request whose state it changes."""
    record = decoded(codec, envelope.value)
    if isinstance(record, Result) and _is_of(record, view):
        outcome = view.outcomes.setdefault(record.request_id, Outcome())
        outcome.result = outcome.result or record  # the first in the log is effective
        return record.request_id
    if isinstance(record, DeadLetter) and record.request_id is not None:
        if record.stage.startswith("signal."):
            return None  # it ends nothing: the decision goes on without that signal
        outcome = view.outcomes.setdefault(record.request_id, Outcome())
        outcome.letters[envelope.partition, envelope.offset] = replace(record, value=None, headers=())
        return record.request_id
    if isinstance(record, LetterClosed) and record.verb == "redriven" and record.request_id in view.outcomes:
        # A letter that the redriven one became before this was written stays open.
        view.outcomes[record.request_id].letters.pop((record.partition, record.offset), None)
        return record.request_id
    return None


def counts(view: RunView) -> Mapping[str, int]:
    """Return how many requests of the run completed, failed, are dead-lettered or pending."""
    results = [o.result for o in view.outcomes.values() if o.result is not None]
    completed = sum(r.status in SUCCESS for r in results)
    dead = sum(o.result is None and o.dead is not None for o in view.outcomes.values())
    # A later submission of fewer lines takes nothing out of the run.
    accepted = max(view.submitted.accepted if view.submitted is not None else 0, len(view.outcomes))
    return {
        "accepted": accepted,
        "completed": completed,
        "failed": len(results) - completed,
        "dead_lettered": dead,
        "pending": max(accepted - len(results) - dead, 0),
    }


def decoded(codec: Codec, value: bytes | None) -> Any:
    """Return the record in *value*, or None if it is not one of ours."""
    try:
        return codec.decode(value)
    except UndecodableError:
        return None


def _is_of(record: Request | Result, view: RunView) -> bool:
    if record.tenant != view.opened.tenant:
        return False
    if isinstance(record, Result) and record.request_id in view.shared:
        return record.finished_at >= view.opened.opened_at - HORIZON_MS
    return record.run == view.opened.run
