"""Typed events that log and count together: a closed list, correlated by request id, no prompt text.

The only module that names log events and metrics. Times come from the clock given here.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.topology import Emit
from schemas.completion import Completion, Result
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.job import Job
from schemas.topics import DECISIONS
from streams.vitals import BROKER, Finding

EVENTS = frozenset(
    {
        "WorkerStarted",
        "WorkerStopped",
        "WorkerFailed",
        "WorkerStuck",
        "PartitionsAssigned",
        "PartitionsRevoked",
        "DecisionMade",
        "JobDispatched",
        "RequestCompleted",
        "RecordDeadLettered",
        "StageStopped",
        "StageWaiting",
        "ArchiveGap",
        "CommitRejected",
        "StackStarted",
        "StackStopped",
        "WorkerRestarted",
    }
)
"""Every event that may be logged."""


_WAIT_TOLD_S = 5.0


class _StandardError:
    """Whatever standard error is when a line is written: a redirected one may be closed by then."""

    def write(self, text: str) -> int:
        """Write *text*."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush."""
        sys.stderr.flush()


def configure_logging(*, json_lines: bool, level: str = "info") -> None:
    """Send structured logs to standard error, as JSON lines or for people."""
    renderer: Any = structlog.processors.JSONRenderer() if json_lines else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_StandardError()),  # type: ignore[arg-type]
    )


class Telemetry:
    """Metrics and events of one process; *clock* gives microseconds since the epoch."""

    def __init__(self, clock: Callable[[], int], role: str = "", *, quiet: bool = False) -> None:
        self.clock = clock
        self.registry = CollectorRegistry()
        self.failed: Callable[[str, BaseException], None] = lambda _stage, _error: None
        self._quiet = quiet
        self._log = structlog.get_logger().bind(role=role)
        self._waiting: set[tuple[str, str]] = set()
        self._lanes: set[tuple[str, str, str, str]] = set()
        self._told_to_wait: tuple[str, float] = ("", -math.inf)
        self._count(self.registry)
        self._gauge(self.registry)

    def _count(self, r: CollectorRegistry) -> None:
        self.records = Counter(
            "signalbox_records_done_total", "Records a stage finished.", ["stage"], registry=r
        )
        self.produced = Counter("signalbox_records_produced_total", "Records written.", ["topic"], registry=r)
        self.produced_bytes = Counter(
            "signalbox_produced_bytes_total", "Bytes of the values written.", ["topic"], registry=r
        )
        self.decisions = Counter(
            "signalbox_decisions_total", "Decisions made.", ["outcome", "decision", "model"], registry=r
        )
        self.explored = Counter(
            "signalbox_explored_total", "Decisions that tried a candidate.", ["decision", "model"], registry=r
        )
        self.explored_usd = Counter(
            "signalbox_explored_usd_total",
            "What exploring cost more than not, by prices and expected tokens.",
            ["decision", "model"],
            registry=r,
        )
        self.completions = Counter(
            "signalbox_completions_total", "Answered calls.", ["provider", "model", "status"], registry=r
        )
        self.cost = Counter("signalbox_cost_usd_total", "Cost of answered calls.", ["model"], registry=r)
        self.latency = Histogram(
            "signalbox_call_duration_seconds",
            "Duration of answered calls.",
            ["provider", "model"],
            registry=r,
        )
        self.late_answers = Counter(
            "signalbox_late_answers_total",
            "Answers that came after their timeout.",
            ["provider", "model"],
            registry=r,
        )
        self.dead = Counter(
            "signalbox_dead_letters_total", "Records nobody could process.", ["stage", "error"], registry=r
        )
        self.never_archived = Counter(
            "signalbox_archive_lost_records_total",
            "Offsets that the broker dropped before they were archived.",
            ["topic"],
            registry=r,
        )

    def _gauge(self, r: CollectorRegistry) -> None:
        self.buffer_items = Gauge(
            "signalbox_buffer_items", "What a bounded buffer holds.", ["stage", "buffer"], registry=r
        )
        self.buffer_limit = Gauge(
            "signalbox_buffer_limit", "What it may hold.", ["stage", "buffer"], registry=r
        )
        self.lanes_out = Gauge(
            "signalbox_lane_out",
            "1 while a lane takes no calls: paused, open or probing.",
            ["provider", "model", "region", "state"],
            registry=r,
        )
        self.stage_stopped = Gauge(
            "signalbox_stage_stopped",
            "1 while the limit of dead letters has stopped the stage.",
            ["stage"],
            registry=r,
        )
        self.late = Gauge(
            "signalbox_late_signals", "Signals that came too late to count.", ["stage"], registry=r
        )
        self.in_flight = Gauge(
            "signalbox_in_flight_records", "Records begun, not done.", ["stage"], registry=r
        )
        self.oldest = Gauge(
            "signalbox_oldest_in_flight_seconds",
            "Age of the oldest unfinished record.",
            ["stage"],
            registry=r,
        )
        self.unread = Gauge(
            "signalbox_unread_records", "Records of its partitions that a stage has not read.", ["stage"],
            registry=r,
        )  # fmt: skip
        self.stalled = Gauge(
            "signalbox_stalled_seconds", "How long something has not moved without a known wait.", ["stage"],
            registry=r,
        )  # fmt: skip
        self.outage = Gauge(
            "signalbox_broker_unreachable_seconds", "How long the broker has not answered.", ["stage"],
            registry=r,
        )  # fmt: skip
        self.held = Gauge("signalbox_operator_pauses", "Pauses by operators.", ["scope"], registry=r)
        self.paused = Gauge("signalbox_paused_partitions", "Partitions not read now.", ["stage"], registry=r)

    def event(self, name: str, /, level: str = "info", **fields: Any) -> None:
        """Log event *name*, which must be one of `EVENTS`; *fields* must not hold prompt text."""
        if name not in EVENTS:
            message = f"{name!r} is not in the closed list of events"
            raise ValueError(message)
        if not self._quiet or level == "error":
            getattr(self._log, level)(name, **fields)

    def sent(self, topic: str, size: int) -> None:
        """Count a record written to *topic*."""
        self.produced.labels(topic).inc()
        self.produced_bytes.labels(topic).inc(size)

    def stage_done(self, stage: str, count: int) -> None:
        """Count records that *stage* finished."""
        self.records.labels(stage).inc(count)
        self._waiting.clear()

    def stepped(self, stage: str, emits: Sequence[Emit]) -> None:
        """Log and count what a step returned."""
        for emit in emits:
            record = emit.record
            if isinstance(record, Decision) and emit.topic == DECISIONS:
                self._decided(record)
            elif isinstance(record, Job):
                self.event("JobDispatched", "debug", request_id=record.request_id.hex(), model=record.model)
            elif isinstance(record, Completion):
                self._completed(record)
            elif isinstance(record, Result):
                self.event(
                    "RequestCompleted",
                    "debug",
                    request_id=record.request_id.hex(),
                    status=record.status,
                    stage=stage,
                )

    def _decided(self, record: Decision) -> None:
        core = record.core
        self.decisions.labels(core.outcome, core.decision, core.chosen).inc()
        if core.explored.draw < core.explored.epsilon:
            self.explored.labels(core.decision, core.chosen).inc()
            self.explored_usd.labels(core.decision, core.chosen).inc(max(0.0, core.explored.extra_usd))
        self.event(
            "DecisionMade",
            "debug",
            request_id=record.request_id.hex(),
            outcome=core.outcome,
            decision=core.decision,
            model=core.chosen,
        )

    def buffered(self, stage: str, buffer: str, items: int, limit: int) -> None:
        """Note how much *buffer* of *stage* holds and may hold."""
        self.buffer_items.labels(stage, buffer).set(items)
        self.buffer_limit.labels(stage, buffer).set(limit)

    def lanes(self, provider: str, out: Iterable[tuple[str, str, str]]) -> None:
        """Note which lanes of *provider* are out: (model, region, state) each."""
        now = {(provider, *lane) for lane in out}
        for gone in {lane for lane in self._lanes if lane[0] == provider} - now:
            self.lanes_out.remove(*gone)
        for lane in now:
            self.lanes_out.labels(*lane).set(1)
        self._lanes = {lane for lane in self._lanes if lane[0] != provider} | now

    def _completed(self, record: Completion) -> None:
        if record.late:
            self.late_answers.labels(record.provider, record.model).inc()
        self.completions.labels(record.provider, record.model, str(record.status)).inc()
        self.cost.labels(record.model).inc(record.cost_usd)
        self.latency.labels(record.provider, record.model).observe(record.latency_ms / 1000)

    def dead_lettered(self, stage: str, envelope: Envelope, error: BaseException) -> None:
        """Log and count a record that became a dead letter."""
        self.dead.labels(stage, type(error).__name__).inc()
        self.event(
            "RecordDeadLettered",
            "warning",
            stage=stage,
            error=type(error).__name__,
            topic=envelope.topic,
            partition=envelope.partition,
            offset=envelope.offset,
        )

    def archive_gap(self, topic: str, partition: int, first: int, end: int) -> None:
        """Log and count the offsets from *first* to before *end*, dropped before they were archived."""
        lost = end - first
        self.never_archived.labels(topic).inc(lost)
        self.event("ArchiveGap", "error", topic=topic, partition=partition, first=first, end=end, lost=lost)

    def stopped(self, stage: str, role: str, reason: str) -> None:
        """Log and show that *stage* is past its limit of dead letters and consumes nothing."""
        self.stage_stopped.labels(stage).set(1)
        self.event(
            "StageStopped", "error", stage=stage, reason=reason, next=f"signalbox resume --stage {role}"
        )

    def restarted(self, stage: str) -> None:
        """Show that *stage* consumes again."""
        self.stage_stopped.labels(stage).set(0)

    def waiting(self, stage: str, what: str) -> None:
        """Log, once until something moves, that *stage* waits for *what*."""
        self._told_to_wait = (what, time.monotonic())
        if (stage, what) not in self._waiting:
            self._waiting.add((stage, what))
            self.event("StageWaiting", "warning", stage=stage, waiting_for=what)

    @property
    def waits_for(self) -> str:
        """Return what a stage said, within the last seconds, that it waits for; empty if nothing."""
        what, at = self._told_to_wait
        return what if time.monotonic() - at < _WAIT_TOLD_S else ""

    def watched(self, stage: str, unread: int | None, findings: Sequence[Finding]) -> None:
        """Measure what a watchdog saw of *stage*; an *unread* of None is a broker that does not answer."""
        stalled = {finding.name: finding.since_s for finding in findings}
        self.outage.labels(stage).set(stalled.pop(BROKER, 0))
        self.stalled.labels(stage).set(max(stalled.values(), default=0))
        if unread is not None:
            self.unread.labels(stage).set(unread)

    def pauses(self, counts: Mapping[str, int]) -> None:
        """Measure how many pauses by operators are held."""
        for scope, count in counts.items():
            self.held.labels(scope).set(count)

    def fatal(self, stage: str, error: BaseException | None) -> None:
        """Log a failure that the process must not survive, and tell whoever runs it."""
        if error is not None:
            self.failed(stage, error)  # first: a log that cannot be written must not hide it
            self.event(
                "WorkerFailed", "error", stage=stage, error=type(error).__name__, message=str(error)[:500]
            )
