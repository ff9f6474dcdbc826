"""What a host's liveness is judged by: counters that move, and the waits that explain why they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Head:
    """The oldest unfinished record of a partition: *mark* differs for another one.

    A known wait explains until *until* (ms since the epoch) that it is not finished; 0 for none.
    """

    mark: int
    until: int = 0


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a host. Counters count since its start; *unread* is None while no broker answers."""

    joined: bool = False
    read: int = 0
    taken: int = 0
    done: int = 0
    commits: int = 0
    committing: bool = False
    queued: int = 0
    in_flight: int = 0
    unread: int | None = 0
    readable: int = 0
    heads: Mapping[int, Head] = field(default_factory=dict)
    paused_by: str = ""
    waits_for: str = ""

    @property
    def moved(self) -> tuple[int, int, int, int]:
        """Return what differs whenever anything was read, taken, finished or committed."""
        return self.read, self.taken, self.done, self.commits


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that should move and is explained by no wait: *mark* differs once it has moved."""

    what: str
    mark: object = None


BROKER = "broker"


def concerns(seen: Vitals, now: int) -> Mapping[str, Concern]:
    """Return by name what ought to move and is not known to wait, at *now* (ms since the epoch)."""
    if seen.unread is None:
        return {BROKER: Concern("the broker does not answer")}
    found: dict[str, Concern] = {}
    if seen.committing:
        found["commit"] = Concern("a commit does not get through", seen.commits)
    if seen.paused_by or seen.waits_for:
        return found
    if not seen.joined:
        found["group"] = Concern("no partitions are assigned and taken over")
        return found
    if seen.queued and not any(head.until > now for head in seen.heads.values()):
        found["agent"] = Concern(
            f"{seen.queued} fetched batches wait and the agent takes none", (seen.taken, seen.done)
        )
    elif seen.readable and not seen.queued:
        found["read"] = Concern(f"{seen.readable} records are unread and none is fetched", seen.read)
    for partition, head in seen.heads.items():
        if head.until <= now:
            found[f"partition {partition}"] = Concern(
                f"the oldest record of partition {partition} does not get finished", head.mark
            )
    return found


@dataclass(frozen=True, slots=True)
class Finding:
    """A concern that has lasted *since_s* seconds, of the *limit_s* that are granted to it."""

    name: str
    what: str
    since_s: float
    limit_s: float

    @property
    def stuck(self) -> bool:
        """Whether it has lasted too long."""
        return self.since_s >= self.limit_s

    def __str__(self) -> str:
        return f"{self.what}, for {self.since_s:.0f} s"


class Watch:
    """Remembers since when each concern lasts without having moved. Times are seconds of any one clock."""

    def __init__(self, stuck_s: float, outage_s: float) -> None:
        self._limits = {BROKER: outage_s}
        self._stuck_s = stuck_s
        self._since: dict[str, tuple[Concern, float]] = {}

    def observe(self, found: Mapping[str, Concern], now_s: float) -> None:
        """Take in what is of concern now; what moved or is explained starts anew."""
        since: dict[str, tuple[Concern, float]] = {}
        for name, concern in found.items():
            before = self._since.get(name)
            same = before is not None and before[0].mark == concern.mark
            since[name] = (concern, before[1] if same and before is not None else now_s)
        self._since = since

    def findings(self, now_s: float) -> list[Finding]:
        """Return the present concerns, the nearest to its limit first."""
        found = [
            Finding(name, concern.what, now_s - since, self._limits.get(name, self._stuck_s))
            for name, (concern, since) in self._since.items()
        ]
        return sorted(found, key=lambda finding: finding.since_s - finding.limit_s, reverse=True)
