"""`up`, `down` and `status` over a real broker and fake workers: everything starts, and ends."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import control
from infra.local.identity import Identity, marked
from infra.local.stack import LocalStack, StackConfig
from infra.local.state import read_state
from tests.infra.local.fake_deployment import DYING_WORKER, TWO_WORKERS, FakeDeployment, worker_spec

pytestmark = [pytest.mark.live, pytest.mark.timeout(420), pytest.mark.usefixtures("kafka_jars")]

PROGRAM = """
import sys
import typer
from infra.local.cli import register
app = typer.Typer()
register(app, sys.argv.pop(1))
app()
"""


def command(*arguments: str, deployment: str = TWO_WORKERS) -> list[str]:
    """Return the command line of the stack's commands."""
    return [sys.executable, "-c", PROGRAM, deployment, *arguments]


def call(*arguments: str, deployment: str = TWO_WORKERS) -> tuple[int, Any, str]:
    """Run a command; returns exit code, parsed stdout (None if empty) and stderr."""
    done = subprocess.run(
        command(*arguments, deployment=deployment), capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def eventually(check: Callable[[], bool], within: float = 90.0) -> None:
    """Return when *check* is true."""
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for a stack that is stopped after the test, whatever happened."""
    yield tmp_path / "stack"
    call("down", "--dir", str(tmp_path / "stack"), "--json")


def processes(folder: Path) -> list[Identity]:
    """Return everything that the state in *folder* names, the supervisor included."""
    state = read_state(folder)
    assert state is not None
    return [state.supervisor.identity, *state.processes(), *marked(state.marker)]


def test_up_answers_when_all_is_healthy_and_down_stops_exactly_that(folder: Path) -> None:
    """The whole life of a stack, with a second `up`, a killed worker and a second `down`."""
    code, up, _ = call("up", "--dir", str(folder), "--workers", "--json")
    assert code == 0
    assert up["triton"] is None
    assert {one["name"] for one in up["providers"]} == {"north", "south"}
    assert [one["role"] for one in up["workers"]] == ["decision", "dispatch"]

    assert control.endpoints(folder).broker == up["broker"]

    code, _, said = call("up", "--dir", str(folder))
    assert (code, "runs in" in said) == (2, True)

    killed = Identity.of(up["workers"][0]["pid"])
    assert killed is not None
    assert killed.send(signal.SIGKILL)
    eventually(lambda: worker_pid(folder, "decision") not in {None, killed.pid})
    told: list[Any] = []

    def well() -> bool:
        code, status, _ = call("status", "--dir", str(folder), "--json")
        told.append(status)
        return code == 0

    eventually(well)
    assert (told[-1]["healthy"], told[-1]["workers"][0]["restarts"]) == (True, 1)

    everything = processes(folder)
    assert call("down", "--dir", str(folder), "--json")[0] == 0
    assert not any(identity.alive() for identity in everything)
    assert call("status", "--dir", str(folder), "--json")[:2] == (3, {"running": False, "healthy": False})
    assert call("down", "--dir", str(folder), "--json")[:2] == (0, {"stopped": []})


def test_a_killed_supervisor_takes_everything_with_it_and_up_starts_anew(folder: Path) -> None:
    """Nothing outlives the supervisor; the data does."""
    _, up, _ = call("up", "--dir", str(folder), "--workers", "--json")
    everything = processes(folder)
    supervisor = Identity.of(up["supervisor_pid"])
    assert supervisor is not None
    assert supervisor.send(signal.SIGKILL)
    eventually(lambda: not any(identity.alive() for identity in everything))

    assert call("status", "--dir", str(folder), "--json")[0] == 3
    code, again, _ = call("up", "--dir", str(folder), "--json")
    assert (code, again["broker"]) == (0, up["broker"])


def test_sigterm_to_the_supervisor_leaves_no_child(folder: Path) -> None:
    """It stops what it started."""
    _, up, _ = call("up", "--dir", str(folder), "--workers", "--json")
    everything = processes(folder)
    supervisor = Identity.of(up["supervisor_pid"])
    assert supervisor is not None
    assert supervisor.send(signal.SIGTERM)

    eventually(lambda: not any(identity.alive() for identity in everything))
    state = read_state(folder)
    assert state is not None
    assert state.phase == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_up_cleans_up(folder: Path, number: signal.Signals) -> None:
    """Whoever changes their mind finds nothing left running."""
    for attempt in range(3):
        where = folder / str(attempt)
        with subprocess.Popen(
            command("up", "--dir", str(where)), stderr=subprocess.PIPE, text=True
        ) as starting:
            eventually(lambda: (state := read_state(where)) is not None and bool(state.processes()))  # noqa: B023 - called at once
            everything = processes(where)
            starting.send_signal(number)
            _, said = starting.communicate(timeout=120)
        if starting.returncode != 0:
            break
        call("down", "--dir", str(where))  # it was up before the signal came

    assert starting.returncode == 130
    assert "interrupted" in said
    assert not any(identity.alive() for identity in everything)


def test_a_worker_that_keeps_dying_fails_up_with_its_last_words(folder: Path) -> None:
    """`up` ends with the reason, and with nothing running."""
    code, _, said = call("up", "--dir", str(folder), "--workers", deployment=DYING_WORKER)

    assert code == 3
    assert "the fake worker was told to die" in said
    assert call("status", "--dir", str(folder))[0] == 3


def worker_pid(folder: Path, role: str) -> int | None:
    """Return the pid that the state file gives for a role."""
    state = read_state(folder)
    found = next((one for one in state.workers if one.role == role), None) if state else None
    return found.process.pid if found and found.process else None


async def test_an_embedded_stack_stops_what_it_started_on_an_error(tmp_path: Path) -> None:
    """The demo's and the kill harness's use: a crash within the block leaves nothing."""
    deployment = FakeDeployment((worker_spec("decision", 0),))
    stack = LocalStack(StackConfig(folder=tmp_path), deployment)

    async def use_and_fail() -> None:
        async with stack:
            await stack.start_workers()
            extra = await stack.spawn_worker(worker_spec("decision", 1), restart=False)
            await extra.ready()
            assert len(list(marked(stack.marker))) == 4
            raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        await use_and_fail()

    assert list(marked(stack.marker)) == []


async def test_a_kept_component_comes_back_at_its_address(tmp_path: Path) -> None:
    """The supervisor's stack survives the death of its broker."""
    async with LocalStack(StackConfig(folder=tmp_path, keep=True)) as stack:
        address = stack.endpoints.broker
        process = stack.broker.process
        assert process is not None
        process.identity.send(signal.SIGKILL)
        async with asyncio.timeout(240):
            while stack.broker.process is process or not await stack.broker.health():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.1)

        assert stack.endpoints.broker == address
