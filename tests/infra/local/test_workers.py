"""Workers come back when they die, until they are stopped."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.errors import StartFailed
from infra.local.events import StackEvent, WorkerDied, WorkerReady
from infra.local.identity import marked
from infra.local.workers import Worker
from tests.infra.local.fake_deployment import worker_spec


def fake(folder: Path, heard: list[StackEvent], *extra: str, restart: bool = True) -> Worker:
    """Return a worker over the fake program; what it reports lands in *heard*."""
    return Worker(
        worker_spec("decision", 0, *extra), folder, f"test-{folder.name}", heard.append, restart=restart
    )


async def eventually(check: Callable[[], bool]) -> None:
    """Return when *check* is true; what it looks at is another process."""
    for _ in range(6_000):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")


async def test_a_killed_worker_comes_back_with_another_pid(tmp_path: Path) -> None:
    """SIGKILL ends one life; the next is ready soon, and the death is reported."""
    heard: list[StackEvent] = []
    worker = fake(tmp_path, heard)
    await worker.start()
    try:
        await worker.ready()
        first = worker.pid
        assert worker.send(signal.SIGKILL)
        await eventually(lambda: worker.pid not in {first, None})
        await worker.ready()

        assert worker.restarts == 1
        assert [(type(one), one.exit_code) for one in heard if isinstance(one, WorkerDied)] == [
            (WorkerDied, -9)
        ]
        assert len([one for one in heard if isinstance(one, WorkerReady)]) == 2
    finally:
        await worker.stop()


async def test_a_stopped_worker_stays_down_and_leaves_nothing(tmp_path: Path) -> None:
    """Stopping is for good."""
    worker = fake(tmp_path, [])
    await worker.start()
    await worker.ready()
    await worker.stop()

    assert worker.pid is None
    assert list(marked(f"test-{tmp_path.name}")) == []


async def test_a_worker_that_keeps_dying_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """Waiting for it ends after a few quick deaths."""
    worker = fake(tmp_path, [], "--die", "3")
    await worker.start()
    try:
        with pytest.raises(StartFailed, match="told to die"):
            await worker.ready()
    finally:
        await worker.stop()


async def test_a_worker_without_restart_stays_dead(tmp_path: Path) -> None:
    """The kill harness may want to see a death last."""
    worker = fake(tmp_path, [], restart=False)
    await worker.start()
    await worker.ready()
    worker.send(signal.SIGKILL)
    await eventually(lambda: worker.pid is None)
    await asyncio.sleep(0.2)

    assert worker.pid is None
    await worker.stop()
