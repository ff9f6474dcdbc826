"""Whose turn it is: what ledger, lanes and deadline say of one job now. Both drivers ask here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agents.failures import LANE_FAILURES, VOID
from agents.lanes import Lane, Lanes
from agents.ledger import RUN, Ledger, Verdict
from agents.policy import Policy
from agents.retry import IN_PROCESS_MS
from agents.work import Conclusion, answered_late, degraded, expired, parked
from schemas.job import AttemptEnded, Job


@dataclass(frozen=True, slots=True)
class Parking:
    """How many jobs may wait in memory for their lane, and how long (ms); beyond, they go to a tier."""

    room: int = 256
    patience_ms: int = 30_000


@dataclass(slots=True)
class Desk:
    """What one worker knows beyond its ledgers: who it is, its lanes, and who is parked at it."""

    worker: str
    region: str = ""
    lanes: Lanes = field(default_factory=Lanes)
    parking: Parking = field(default_factory=Parking)
    parked: set[str] = field(default_factory=set)

    def lane(self, job: Job) -> Lane:
        """Return the lane that *job* is called in."""
        return Lane(job.provider, job.model, self.region)

    def judge(self, ledger: Ledger, job: Job, policy: Policy, now: int) -> Verdict | Conclusion:
        """Return what to do about *job* at *now* (ms): a verdict, or its end without a call."""
        verdict = ledger.judge(job, now)
        if verdict.action == "skip" or (verdict.action == "wait" and ledger.is_open(job)):
            return verdict
        over = self._over(ledger, job, now)
        if over is not None:
            return over
        free_at = self.lanes.free_at(self.lane(job), now)
        if max(verdict.until, free_at) <= now:
            self.parked.discard(job.key)
            return RUN
        until = min(max(verdict.until, free_at), job.deadline + 1)
        if free_at > now and self._overflows(job, policy, free_at - now, now):
            return parked(job, self.worker, now, until, "lane_paused")
        self.parked.add(job.key)
        return Verdict("wait", until)

    def _over(self, ledger: Ledger, job: Job, now: int) -> Conclusion | None:
        """Return the end of a job that must not be called any more; None for one that may be."""
        if ledger.is_answered(job):
            return answered_late(job, self.worker, now)
        if now > job.deadline:
            return expired(job, self.worker, now)
        if self.lanes.is_open(self.lane(job), now) and job.plan_index + 1 < len(job.plan):
            return degraded(job, self.worker, now, "circuit_open")
        return None

    def _overflows(self, job: Job, policy: Policy, wait_ms: int, now: int) -> bool:
        """Tell whether a job of a paused lane must leave memory, so that others get past it.

        Where every lane of the provider is out nobody would get past: its topic waits instead.
        """
        crowded = job.key not in self.parked and len(self.parked) >= self.parking.room
        if wait_ms <= IN_PROCESS_MS or not (crowded or wait_ms > self.parking.patience_ms):
            return False
        others = (Lane(job.provider, name, self.region) for name in policy.models_at(job.provider))
        return self.lanes.any_free(others, now)

    def learn(self, end: AttemptEnded, now: int) -> None:
        """Note what the end of an attempt says of its lane, whoever wrote it."""
        if end.lane_until > now:
            self.lanes.pause(Lane(end.provider, end.model, end.region), end.lane_until)

    def stamped(self, conclusion: Conclusion, now: int) -> Conclusion:
        """Return *conclusion* with the region it happened in, having learned what it says of its lane."""
        end = replace(conclusion.ended, region=self.region)
        self.learn(end, now)
        return replace(conclusion, ended=end)

    def called(self, job: Job, code: str, took_ms: float, now: int, *, probe: bool) -> None:
        """Note how a call ended: *code* of its failure, empty for an answer; a rate limit is void."""
        lane = self.lane(job)
        if code in VOID:
            self.lanes.end(lane, now, "void", probe=probe)
            return
        failed = code in LANE_FAILURES
        how = self.lanes.ending(failed=failed, took_ms=took_ms, timeout_ms=job.call_timeout_ms)
        self.lanes.end(lane, now, how, probe=probe)

    def forget(self, job: Job) -> None:
        """Note that *job* is done with here."""
        self.parked.discard(job.key)
