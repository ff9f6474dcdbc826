"""A worker that makes no progress is told from one that waits, and ends itself."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from agents.errors import RouterError, Unavailable
from agents.testing import request_of
from schemas.control import Paused
from schemas.topics import CONTROL_EVENTS
from streams.host import Host
from streams.log import TP, Commit
from streams.telemetry import Telemetry
from streams.watchdog import LoopMonitor, Stuck, Turns, Watchdog
from tests.architecture.repository import ROOT
from tests.streams.plays import Play, Worker
from tests.streams.test_host import YAML

LIMIT_S, OUTAGE_S = 60.0, 600.0


class Watched:
    """A watchdog over one host of a play, whose time passes as the test says."""

    def __init__(self, play: Play, host: Host) -> None:
        self.failures: list[RouterError] = []
        self._now = 0.0
        self._play = play
        telemetry = Telemetry(play.clock, quiet=True)
        self.dog = Watchdog(play.log, telemetry, (LIMIT_S, OUTAGE_S), self.failures.append)
        self.dog._turns = Turns(1000.0, lambda: self._now)
        self.dog.host = host

    async def after(self, seconds: float) -> list[str]:
        """Look every ten seconds for *seconds*; return the names of what is of concern at the end."""
        for _ in range(int(seconds / 10)):
            self._now += 10
            await asyncio.sleep(0)
            await self.dog.look()
        return [finding.name for finding in self.dog.findings]


def host_of(worker: Worker, role: str) -> Host:
    """Return the worker's host of *role*."""
    return next(host for host in worker.fleet.hosts if host.runner.group == role)


async def started(play: Play, role: str, *, asked: int = 0) -> tuple[Host, Watched]:
    """Start a worker and watch its *role*; *asked* requests are served before."""
    await play.publish()
    host = host_of(await play.worker("w1"), role)
    for n in range(asked):
        play.ask(request_of(play.policy, f"before{n}", f"python {n}", now=play.clock.now), n % 2)
    await play.until(lambda: play.total(["results"]) == asked, "what was asked before")
    await play.quiet(8)
    return host, Watched(play, host)


def ask(play: Play) -> None:
    """Ask something more in either partition."""
    for p in range(2):
        play.ask(request_of(play.policy, f"more{p}", "python", now=play.clock.now), p)


async def stands_still(watched: Watched, *expected: str) -> None:
    """Check that the standstill is seen for what it is, and told once its limit is reached and no earlier."""
    seen = await watched.after(LIMIT_S - 20)
    early = list(watched.failures)
    await watched.after(40)

    assert set(seen) == set(expected)
    assert early == []
    assert isinstance(watched.failures[0], Stuck)


async def test_a_worker_with_nothing_to_do_is_never_stuck() -> None:
    """Neither a fresh one nor one that has caught up."""
    async with Play(YAML) as play:
        for role in ("decision", "provider.north", "signals.heuristics"):
            _, watched = await started(play, role, asked=0)
            assert await watched.after(LIMIT_S * 10) == []
        assert watched.failures == []


async def test_a_worker_whose_agent_died_is_stuck() -> None:
    """Batches are fetched and nobody takes them."""
    async with Play(YAML) as play:
        host, watched = await started(play, "signals.heuristics", asked=2)
        host.runner.process = lambda _tp, _records: asyncio.Event().wait()  # type: ignore[method-assign,assignment,return-value]
        ask(play)
        await play.until(lambda: host.vitals({}).queued > 0, "the batches")
        await stands_still(watched, "agent")


async def test_a_worker_that_fetches_nothing_is_stuck() -> None:
    """The log goes on and the consumer gives nothing out."""
    async with Play(YAML) as play:
        host, watched = await started(play, "dispatch", asked=4)

        polled = asyncio.Event()

        async def nothing(timeout_s: float) -> Mapping[TP, Any]:
            polled.set()
            await asyncio.sleep(timeout_s)
            return {}

        host.consumer._inner.poll = nothing  # type: ignore[method-assign]
        await polled.wait()
        ask(play)
        await asyncio.sleep(0.1)
        await stands_still(watched, "read")


async def test_a_worker_whose_commits_do_not_get_through_is_stuck() -> None:
    """Records are done, and a restart would do all of them again."""
    async with Play(YAML) as play:
        host, watched = await started(play, "signals.heuristics", asked=2)

        async def refused(offsets: Mapping[TP, Commit]) -> None:
            del offsets
            raise Unavailable("the coordinator is away")

        host.consumer._inner.commit = refused  # type: ignore[method-assign]
        ask(play)
        await play.until(lambda: host.consumer.committing, "a commit")
        await stands_still(watched, "commit")


async def test_a_record_that_never_ends_is_noticed_though_others_do() -> None:
    """A call that was lost inside the process holds its partition's commit for ever."""
    async with Play(YAML) as play:
        host, watched = await started(play, "provider.north", asked=2)
        play.provider.gate = asyncio.Event()
        ask(play)
        await play.until(lambda: len(play.provider.calls) == 4, "the calls")
        assert await watched.after(LIMIT_S * 3) == []  # within its timeout a call explains itself
        play.clock.advance(61_000)
        await stands_still(watched, "partition 0", "partition 1")
        assert host.runner.progress().in_flight == 2


async def test_a_request_that_waits_for_a_signal_explains_itself_until_it_is_due() -> None:
    """The decision role waits for a role that is away, by its decide_by and no longer."""
    async with Play(YAML) as play:
        await play.publish()
        roles = ["signals.heuristics", "decision", "dispatch"]
        worker = await play.worker("w1", roles)
        watched = Watched(play, host_of(worker, "decision"))
        dispatch = Watched(play, host_of(worker, "dispatch"))
        ask(play)
        await play.until(lambda: host_of(worker, "decision").runner.progress().in_flight == 2, "the requests")
        assert await watched.after(LIMIT_S * 10) == []
        assert await dispatch.after(LIMIT_S * 10) == []


async def test_a_paused_worker_is_not_stuck() -> None:
    """What an operator stopped stands still rightly, however long."""
    async with Play(YAML) as play:
        _, watched = await started(play, "signals.heuristics", asked=2)
        order = Paused("stage", "signals.heuristics", "ada", "why", 1)
        play.log.append((CONTROL_EVENTS, 0), b"", play.codec.encode(order))
        await play.until(lambda: bool(play.workers[0].world.pauses.held), "the order")
        await play.quiet()  # a poll that was under way when it came
        ask(play)
        assert await watched.after(LIMIT_S * 10) == []
        assert watched.dog.report()["waits_for"] == "paused by ada"
        assert watched.dog.report()["unread"] == 2


async def test_an_outage_of_the_broker_has_its_own_bound_and_error() -> None:
    """A worker waits for a broker longer than for itself, then says that a dependency is down."""
    async with Play(YAML) as play:
        _, watched = await started(play, "decision", asked=2)

        async def away(_partitions: object) -> Mapping[TP, int]:
            raise Unavailable("no broker")

        watched.dog._log.ends = away  # type: ignore[method-assign,assignment]
        assert await watched.after(LIMIT_S * 5) == ["broker"]
        assert watched.failures == []
        assert watched.dog.report()["broker"] is False
        await watched.after(OUTAGE_S)
        assert isinstance(watched.failures[0], Unavailable)


def test_time_while_the_process_was_stopped_does_not_count() -> None:
    """After a SIGSTOP of an hour at most two intervals have passed."""
    seen = iter([0.0, 1.0, 3601.0, 3602.0])
    turns = Turns(1.0, lambda: next(seen))

    assert [turns.turn() for _ in range(3)] == [1.0, 3.0, 4.0]


def ended(limit_s: float, act: Callable[[LoopMonitor], None], *, patience_s: float = 60.0) -> str:
    """Return with what reason a monitor ended its process after *act*, at most *patience_s* seconds later."""
    reasons: Queue[str] = Queue()
    monitor = LoopMonitor(limit_s, reasons.put)
    monitor.start()
    act(monitor)
    try:
        return reasons.get(timeout=patience_s)
    except Empty:
        return ""
    finally:
        monitor.stop()


def test_a_blocked_loop_is_noticed_and_a_turning_one_is_not() -> None:
    """The thread judges by the beats alone."""

    def beat(monitor: LoopMonitor) -> None:
        while monitor._turns.now < 2.5:
            monitor.beat()
            time.sleep(0.01)

    assert "blocked" in ended(0.2, lambda _: None)
    assert ended(1.0, beat, patience_s=0.0) == ""


def test_a_process_that_does_not_end_when_told_is_ended() -> None:
    """A drain that hangs must not hang for ever."""
    assert "did not end" in ended(600.0, lambda monitor: monitor.must_end(0.2))


def test_a_worker_with_a_blocked_loop_exits_with_its_own_code(tmp_path: Path) -> None:
    """The process says what is the matter, shows where it stands, and exits 5."""
    script = tmp_path / "blocked.py"
    script.write_text(
        "import time\n"
        "from functools import partial\n"
        "from streams.settings import wall_clock\n"
        "from streams.telemetry import Telemetry, configure_logging\n"
        "from streams.watchdog import LoopMonitor, end_process\n"
        "configure_logging(json_lines=True)\n"
        "LoopMonitor(0.5, partial(end_process, Telemetry(wall_clock, 'decision'))).start()\n"
        "def hangs_here():\n"
        "    time.sleep(100)\n"
        "hangs_here()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert done.returncode == 5
    assert '"event": "WorkerStuck"' in done.stderr
    assert "hangs_here" in done.stderr
