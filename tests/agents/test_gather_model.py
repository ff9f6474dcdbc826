"""The gather under everything that can happen to it, judged by a world that knows the truth.

Chaos steps in any order; at the end of every history the roles finish, and the gather must decide
all that the log holds the signals of without a deadline's help, then all the rest by deadlines.
"""

import sys
from collections import deque
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agents.gather import GRACE_MS, Arrival, Gather
from tests.agents.gather_world import FETCH, REQUESTS, Owner, Role, World, past_all_deadlines

ROLES = ("a", "b", "c")
PATIENCE = st.sampled_from([0, 500, 2_000, 100_000, 100_000])
PICKS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


class GatherMachine(RuleBasedStateMachine):
    """Requests, roles and an owner of one partition; `kind` is the gather under test."""

    kind: type[Gather] = Gather

    @initialize(
        roles=st.sampled_from([ROLES[:2], ROLES]),
        window=st.integers(2, 7),
        skew=st.integers(1 - GRACE_MS, GRACE_MS - 1),
        spans=st.lists(st.integers(1, 7), min_size=3, max_size=3),
    )
    def build(self, roles: tuple[str, ...], window: int, skew: int, spans: list[int]) -> None:
        """Start with empty logs."""
        named = {name: Role(name, min(span, window)) for name, span in zip(roles, spans, strict=False)}
        self.world = World(named, skew)
        self.window = window
        self.all_read_back = True
        self.owner = Owner(self.world, self.kind, window, ())

    @rule(
        gaps=st.lists(st.sampled_from([0, 0, 0, 0, 1, 9]), min_size=1, max_size=8),
        demanded=st.sets(st.sampled_from(ROLES)),
        patience=PATIENCE,
        decodable=st.sampled_from([True, True, True, False]),
    )
    def ask(self, gaps: list[int], demanded: set[str], patience: int, *, decodable: bool) -> None:
        """Requests arrive, behind gaps of offsets, some of them undecodable."""
        known = sorted(demanded & set(self.world.roles))
        for gap in gaps:
            self.world.ask(gap, known, patience, decodable=decodable)

    @rule(count=st.integers(1, 12))
    def ask_for_everything(self, count: int) -> None:
        """A burst of requests demands every role, with patience."""
        for _ in range(count):
            self.world.ask(0, tuple(self.world.roles), 100_000, decodable=True)

    @rule(role=st.sampled_from(ROLES), picks=PICKS, twice=st.booleans())
    def observe(self, role: str, picks: list[int], *, twice: bool) -> None:
        """A role works, out of order within its span, now and then emitting twice."""
        if role in self.world.roles:
            self.world.roles[role].work(self.world, picks, twice=twice)

    @rule(role=st.sampled_from(ROLES), pick=st.integers(0, 7))
    def garble(self, role: str, pick: int) -> None:
        """A role emits a record that cannot be decoded: this signal is lost."""
        if role in self.world.roles:
            self.world.roles[role].work(self.world, [pick], garbled=True)

    @rule(role=st.sampled_from(ROLES), crash=st.booleans())
    def restart_role(self, role: str, *, crash: bool) -> None:
        """A role commits, or crashes and emits again what it had not committed."""
        if role in self.world.roles:
            (self.world.roles[role].crash if crash else self.world.roles[role].commit)()

    @rule(source=st.sampled_from((REQUESTS, *ROLES)), fetches=st.integers(1, 8), pause_lost=st.booleans())
    def read(self, source: str, fetches: int, *, pause_lost: bool) -> None:
        """The owner reads an input; after a rebalance even one that should be paused."""
        if source in self.owner.sources:
            for _ in range(fetches):
                self.owner.read(source, FETCH)
            if pause_lost:
                self.owner.read(source, FETCH, pause_lost=True)

    @rule(picks=PICKS, heard=PICKS)
    def acknowledge(self, picks: list[int], heard: list[int]) -> None:
        """The broker takes decisions, and the owner learns of some of them, in any order."""
        for pick in picks:
            self.owner.land(pick)
        for pick in heard:
            self.owner.acknowledge(pick)

    @rule(picks=PICKS, order=st.permutations((REQUESTS, *ROLES)), commit=st.booleans())
    def flow(self, picks: list[int], order: list[str], *, commit: bool) -> None:
        """Everybody does a little: roles emit, the owner reads, decides and is told of some of it."""
        for source in order:
            if source in self.world.roles:
                self.world.roles[source].work(self.world, picks[: 1 + picks[0]])
            if source in self.owner.sources:
                self.owner.read(source, 1 + picks[-1] % FETCH)
        for pick in picks:
            self.owner.land(pick)
            self.owner.acknowledge(pick)
        if commit:
            self.owner.commit()

    @rule(ms=st.sampled_from([1, 400, 1_000, 2_500]), late_by=st.sampled_from([0, 0, 5, 2_000]))
    def pass_time(self, ms: int, late_by: int) -> None:
        """Time passes and deadlines may fire."""
        self.world.now += ms
        self.owner.tick(late_by)

    @rule()
    def commit(self) -> None:
        """The owner commits."""
        self.owner.commit()

    @rule(forgets=st.sampled_from([0, 0, 0, 2]), commit=st.booleans())
    def crash(self, forgets: int, *, commit: bool) -> None:
        """The owner dies; the next one re-reads the log and, fully or not, what was decided."""
        if commit:
            self.owner.commit()
        start = self.world.committed.get(REQUESTS, 0)
        decided = [origin for origin in self.world.decisions if origin >= start]
        if forgets and decided:
            self.all_read_back = False
            decided = decided[:-forgets]
        self.owner = Owner(self.world, self.kind, self.window, decided)

    @invariant()
    def decided_once(self) -> None:
        """With a complete read-back every request is decided once, whatever died."""
        if hasattr(self, "world") and self.all_read_back:
            assert len(self.world.decisions) == len(set(self.world.decisions)), "decided twice"

    def teardown(self) -> None:
        """Nothing waits in vain: neither for a signal that the log holds, nor behind a deadline."""
        if not hasattr(self, "world") or sys.exc_info()[0] is not None:
            return  # nothing was built, or a step has failed and says more than its aftermath
        self._finish_roles()
        self.owner.run_dry()
        waiting = self.world.undecided()
        assert not waiting or self.world.lacks(waiting[0]), "waits although the log holds every signal"
        self.world.now = past_all_deadlines(self.world)
        self.owner.run_dry()
        assert self.world.undecided() == [], "undecided although every deadline has passed"
        self.owner.commit()
        self.decided_once()
        for source in self.owner.sources:
            assert self.world.committed.get(source, 0) == self.world.end(source), "not all was committed"

    def _finish_roles(self) -> None:
        for role in self.world.roles.values():
            role.work(self.world, [0] * len(self.world.requests))
            role.work(self.world, [0] * len(self.world.requests))


TestGather = GatherMachine.TestCase
TestGather.__doc__ = (
    "In every history the gather decides what the log says, once, and holds no more than its bound."
)
TestGather.settings = settings(
    max_examples=250, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


class IndependentPrefixes(Gather):
    """Commits each input up to its first record that is not settled, whatever the others need."""

    def __init__(
        self, inputs: Iterable[str], window: int, start: Mapping[str, int], decided: Iterable[int] = ()
    ) -> None:
        super().__init__(tuple(inputs), window, start, decided)
        self._read: dict[str, deque[Arrival]] = {source: deque() for source in self._inputs}
        self._settled = set(decided)

    def offer(self, source: str, arrivals: Iterable[Arrival]) -> None:
        """Remember what was read."""
        arrivals = list(arrivals)
        self._read[source].extend(arrivals)
        super().offer(source, arrivals)

    def settle(self, origin: int) -> None:
        """Remember what was settled."""
        self._settled.add(origin)
        super().settle(origin)

    def commits(self) -> Mapping[str, int]:
        """Return the completed prefix of every input."""
        super().commits()
        moved = {}
        for source, read in self._read.items():
            while read and (read[0].origin in self._settled or read[0].origin < self.low):
                moved[source] = read.popleft().offset + 1
        return moved


class PausesNothing(Gather):
    """Lets every input be read on, however far it runs ahead."""

    def paused(self) -> frozenset[str]:
        """Return nothing."""
        return frozenset()


class NoWindow(Gather):
    """Lets in whatever comes."""

    def _fits(self, source: str, arrival: Arrival) -> bool:
        del source, arrival
        return True


class PausedMeansDone(Gather):
    """Takes any paused input for one that has nothing more to say."""

    def _exhausted(self, source: str, origin: int, decide_by: int) -> bool:
        return bool(self._inputs[source].held) or super()._exhausted(source, origin, decide_by)


class PausedMeansNothing(Gather):
    """Waits for an end that a paused input cannot be read to."""

    def _exhausted(self, source: str, origin: int, decide_by: int) -> bool:
        return not self._inputs[source].held and super()._exhausted(source, origin, decide_by)


class ClockAlone(Gather):
    """Lets a deadline fire without looking at what the log still holds."""

    def _exhausted(self, source: str, origin: int, decide_by: int) -> bool:
        del source, origin, decide_by
        return True


class LateCounts(Gather):
    """Counts signals whenever they come."""

    def _admit_part(self, source: str, arrival: Arrival) -> None:
        super()._admit_part(source, Arrival(arrival.offset, 0, arrival.origin, arrival.record))


class ReadsNothingBack(Gather):
    """Forgets what an earlier life decided."""

    def __init__(
        self, inputs: Iterable[str], window: int, start: Mapping[str, int], decided: Iterable[int] = ()
    ) -> None:
        del decided
        super().__init__(tuple(inputs), window, start)


class CommitsWhatItRead(Gather):
    """Commits all that was let in."""

    def commits(self) -> Mapping[str, int]:
        """Return every position."""
        super().commits()
        return {source: box.position for source, box in self._inputs.items()}


@pytest.mark.parametrize(
    ("sabotaged", "complaint"),
    [
        (IndependentPrefixes, "passed a signal that is still needed"),
        (PausesNothing, "more is held than the bound"),
        (NoWindow, "more stops the commit|more is held than the bound"),
        (PausedMeansDone, "in time in the log did not count"),
        (PausedMeansNothing, "undecided although every deadline has passed"),
        (ClockAlone, "in time in the log did not count"),
        (LateCounts, "a late signal counted"),
        (ReadsNothingBack, "decided twice"),
        (CommitsWhatItRead, "the commit passed"),
    ],
)
def test_the_model_finds_a_sabotaged_gather(sabotaged: type[Gather], complaint: str) -> None:
    """The test of the test: each rule of the gather is missed by the world when it is broken."""

    class Machine(GatherMachine):
        kind = sabotaged

    with pytest.raises(AssertionError, match=complaint):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=1_000,
                stateful_step_count=50,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_independent_prefixes_leave_a_request_waiting_for_what_was_committed_past() -> None:
    """The consequence of the broken commit rule: after a crash a request waits for a signal in the log."""
    world = World({"a": Role("a", 1), "b": Role("b", 1)}, skew=0)
    for _ in range(2):
        world.ask(0, ("a", "b"), 100_000, decodable=True)
    world.emit("a", 1)
    world.emit("a", 0)
    world.emit("b", 1)

    def after_a_crash(kind: type[Gather]) -> list[int]:
        first = Owner(world, kind, 4, ())
        first.run_dry()
        world.committed = dict(first.gather.commits())
        second = Owner(world, kind, 4, ())
        for source in second.sources:
            second.gather.offer(source, world.read(source, world.committed.get(source, 0), 10))
        return [gathered.origin for gathered in second.gather.ready()]

    assert after_a_crash(Gather) == [1]
    assert after_a_crash(IndependentPrefixes) == []


@pytest.mark.parametrize(("span", "waits"), [(4, False), (6, True)])
def test_a_role_that_spans_more_than_the_window_leaves_requests_waiting(span: int, *, waits: bool) -> None:
    """Why a role must bound its span: behind what it ran ahead with, the gather cannot see the oldest."""
    world = World({"a": Role("a", span)}, skew=0)
    for _ in range(6):
        world.ask(0, ("a",), 100_000, decodable=True)
    world.roles["a"].work(world, [-1] * 6)  # always the newest it may start, so the oldest comes last
    owner = Owner(world, Gather, 4, ())
    owner.run_dry()

    assert bool(world.undecided()) is waits
    assert ("a" in owner.gather.paused()) is waits
