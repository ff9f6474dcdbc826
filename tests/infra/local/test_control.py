"""What is said of folders in which nothing runs, and what is never touched there."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from infra.local import control
from infra.local.deployment import Endpoints, load_factory
from infra.local.errors import NothingRunning, StackError, UsageError
from infra.local.identity import Identity
from infra.local.stack import LocalStack, StackConfig, first_of
from infra.local.state import Phase, ProcessState, StackState, WorkerState, read_state, write_state

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


def left_by_a_dead_supervisor(folder: Path, worker: Identity) -> StackState:
    """Return the state of a stack whose supervisor is gone, with one worker."""
    process = ProcessState.of(worker)
    state = WorkerState(
        role="decision", instance=0, process=process, log=folder / "l", port_file=folder / "p"
    )
    return StackState(
        phase=Phase.RUNNING,
        marker="test-control",
        supervisor=ProcessState(pid=2**22 + 1, started=1),
        endpoints=Endpoints(broker="127.0.0.1:1"),
        workers=(state,),
    )


async def test_nothing_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """Each question says so, and what to do; exit code 3."""
    with pytest.raises(NothingRunning, match="signalbox up") as asked:
        await control.status(tmp_path)
    with pytest.raises(NothingRunning):
        await control.down(tmp_path)
    with pytest.raises(NothingRunning):
        control.endpoints(tmp_path)

    assert asked.value.exit_code == 3


async def test_down_ends_what_a_killed_supervisor_left_and_says_which(tmp_path: Path) -> None:
    """The recorded process, recognised by its start time, is stopped."""
    child = await asyncio.create_subprocess_exec(*SLEEP)
    identity = Identity.of(child.pid)
    assert identity is not None
    write_state(tmp_path, left_by_a_dead_supervisor(tmp_path, identity))
    status = await control.status(tmp_path)

    assert (status.phase, status.healthy) == ("orphaned", False)
    assert await control.down(tmp_path) == (child.pid,)
    assert await child.wait() == -signal.SIGKILL
    state = read_state(tmp_path)
    assert state is not None
    assert state.phase is Phase.STOPPED


async def test_down_never_ends_a_process_that_got_a_recorded_pid(tmp_path: Path) -> None:
    """This very test has the pid of a recorded worker, and lives on."""
    identity = Identity.of(os.getpid())
    assert identity is not None
    stranger = Identity(identity.pid, identity.started - 1)
    write_state(tmp_path, left_by_a_dead_supervisor(tmp_path, stranger))

    with pytest.raises(NothingRunning):
        await control.down(tmp_path)
    await control.clear_leftovers(tmp_path)

    assert identity.alive()


def test_an_unknown_deployment_is_a_usage_error() -> None:
    """A misspelt name is told, with exit code 2."""
    with pytest.raises(UsageError, match="no deployment 'nowhere:nothing'"):
        load_factory("nowhere:nothing")


def test_triton_without_models_is_a_usage_error(tmp_path: Path) -> None:
    """`--triton` with a policy that names no model cannot be obeyed."""
    with pytest.raises(UsageError, match="drop --triton"):
        LocalStack(StackConfig(folder=tmp_path, triton=True))


def test_of_several_failures_the_one_that_explains_itself_is_shown() -> None:
    """The user reads why, not that other things were cancelled meanwhile."""
    explained = StackError("no Java")
    group = BaseExceptionGroup("", [ValueError("x"), BaseExceptionGroup("", [explained])])

    assert first_of(group) is explained
    assert str(first_of(BaseExceptionGroup("", [ValueError("only")]))) == "only"
