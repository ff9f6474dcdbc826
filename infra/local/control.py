"""Starting, stopping and asking a detached stack, by its folder alone."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.broker import broker_answers
from infra.local.deployment import Endpoints
from infra.local.errors import NothingRunning, StackError, StartFailed, explain_os_error
from infra.local.external import External, ExternalTriton
from infra.local.http_health import answers_ok
from infra.local.identity import Identity, marked
from infra.local.machine import environment
from infra.local.process import clear_marked, tail
from infra.local.state import ComponentState, Phase, StackState, held, hold, read_state, write_state
from infra.local.supervisor import ASSIGNMENT, Assignment
from infra.local.triton import clear_shared_memory
from infra.local.workers import ready_by, told_by

ASSIGNED = "assignment.json"
SUPERVISOR_LOG = "supervisor.log"
POLL = 0.1
# Workers, then providers, Triton and Kafka, each with a grace of its own.
STOP_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """One process or external component: does it run, does it answer."""

    name: str
    address: str
    pid: int | None
    healthy: bool
    restarts: int = 0
    log: str = ""
    # What a worker says of its progress; None if it says nothing.
    report: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What runs in a folder; *phase* is the supervisor's own word, "orphaned" if it is dead."""

    phase: str
    supervisor_pid: int | None
    components: tuple[Health, ...]
    workers: tuple[Health, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything runs and answers."""
        every = (*self.components, *self.workers)
        return self.phase == Phase.RUNNING and all(one.healthy for one in every)


async def up(assignment: Assignment, tell: Callable[[str], None]) -> StackState:
    """Start a detached stack and return its state once all of it is healthy.

    Cancelled (Ctrl-C), it stops what it began. *tell* gets each new thing being done.

    Raises:
        AlreadyRunning: a stack runs in the folder.
        StackError: it could not be started; nothing is left running.
    """
    folder = assignment.stack.folder
    with hold(folder):
        await clear_leftovers(folder)
        _assign(folder, assignment)
    child = _spawn(folder)
    identity = Identity.of(child.pid)
    try:
        return await _until_running(folder, child, tell)
    except BaseException:
        if identity is not None:
            await _end(identity)
        # If somebody else's stack won a race for the folder, what runs there is theirs.
        if not held(folder):
            await clear_leftovers(folder)
        raise


async def down(folder: Path) -> tuple[int, ...]:
    """Stop the stack of *folder*, also after its supervisor was killed; returns the pids.

    Raises:
        NothingRunning: nothing of it runs.
    """
    state = read_state(folder)
    running = () if state is None else tuple(survivors(state))
    if state is None or not (running or held(folder)):
        raise NothingRunning(f"nothing runs in {folder}")
    await _end(state.supervisor.identity)
    await clear_leftovers(folder)
    return tuple(sorted({identity.pid for identity in running}))


async def status(folder: Path) -> Status:
    """Return what runs in *folder* and whether it answers.

    Raises:
        NothingRunning: nothing of it runs.
    """
    state = read_state(folder)
    if state is None or not any(survivors(state)):
        raise NothingRunning(f"nothing runs in {folder}: `signalbox up --dir {folder}` starts a stack")
    alive = state.supervisor.identity.alive()
    components, workers = await asyncio.gather(
        asyncio.gather(*(_component_health(one) for one in state.components)),
        asyncio.gather(*(_worker_health(state, index) for index in range(len(state.workers)))),
    )
    return Status(
        phase=str(state.phase) if alive else "orphaned",
        supervisor_pid=state.supervisor.pid if alive else None,
        components=tuple(components),
        workers=tuple(workers),
    )


def endpoints(folder: Path) -> Endpoints:
    """Return where the components of the stack in *folder* are.

    Raises:
        NothingRunning: no stack runs there, or it is not up yet.
    """
    state = read_state(folder.absolute())
    if state is None or state.endpoints is None or not state.supervisor.identity.alive():
        raise NothingRunning(f"no stack runs in {folder}: `signalbox up --dir {folder}` starts one")
    return state.endpoints


def survivors(state: StackState) -> Iterator[Identity]:
    """Yield every process of *state* that still runs, the supervisor first."""
    seen = set()
    for identity in (state.supervisor.identity, *state.processes(), *marked(state.marker)):
        if identity not in seen and identity.alive():
            seen.add(identity)
            yield identity


async def clear_leftovers(folder: Path) -> None:
    """Kill what a dead supervisor left behind, and say in the state that nothing runs.

    Only processes that are recognised by pid and start time, or by the stack's marker.
    """
    state = read_state(folder)
    if state is None:
        return
    # A live supervisor is never a leftover: it was asked to end before.
    others = [one for one in state.processes() if one != state.supervisor.identity]
    await clear_marked(lambda: (one for one in (*others, *marked(state.marker)) if one.alive()))
    clear_shared_memory(state.marker)
    if state.phase not in {Phase.STOPPED, Phase.FAILED}:
        write_state(
            folder,
            state.model_copy(
                update={"phase": Phase.STOPPED, "endpoints": None, "components": (), "workers": ()}
            ),
        )


def _assign(folder: Path, assignment: Assignment) -> None:
    try:
        (folder / ASSIGNED).write_bytes(ASSIGNMENT.dump_json(assignment, indent=1))
    except OSError as error:
        raise explain_os_error(error, folder) from error


def _spawn(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / SUPERVISOR_LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.local.supervisor", str(folder / ASSIGNED)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment(),
        )  # fmt: skip


async def _until_running(
    folder: Path, child: "subprocess.Popen[bytes]", tell: Callable[[str], None]
) -> StackState:
    told = ""
    while True:
        ended = child.poll()
        state = read_state(folder)
        mine = state is not None and state.supervisor.pid == child.pid
        if state is not None and mine:
            if state.phase is Phase.RUNNING:
                return state
            if state.phase is Phase.FAILED and ended is not None:
                raise _failure(state)
            if state.doing and state.doing != told:
                told = state.doing
                tell(told)
        if ended is not None and not (mine and state is not None and state.phase is Phase.FAILED):
            raise StartFailed(
                f"the supervisor ended with {ended} while starting; the end of {folder / SUPERVISOR_LOG}:\n"
                f"{tail(folder / SUPERVISOR_LOG)}"
            )
        await asyncio.sleep(POLL)


def _failure(state: StackState) -> StackError:
    error = StackError(state.error)
    # The supervisor's error crossed a process boundary as text and exit code.
    error.exit_code = state.exit_code  # type: ignore[misc]
    return error


async def _end(supervisor: Identity) -> None:
    """Ask the supervisor to stop its stack; insist when it takes too long."""
    if not supervisor.send(signal.SIGTERM):
        return
    deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT
    while supervisor.alive():
        if asyncio.get_running_loop().time() > deadline:
            supervisor.send(signal.SIGKILL)
            return
        await asyncio.sleep(POLL)


async def _component_health(state: ComponentState) -> Health:
    alive = state.process is None or state.process.identity.alive()
    return Health(
        name=state.name,
        address=state.address,
        pid=state.process.pid if state.process is not None else None,
        healthy=alive and await _answers(state),
    )


async def _answers(state: ComponentState) -> bool:
    external = External(state.address, state.settings)
    if state.checks:
        return await answers_ok(*state.checks)
    if state.name == "triton":
        return await ExternalTriton(external, state.models).health()
    return await broker_answers(state.address, external.client_arguments() if state.settings else None)


async def _worker_health(state: StackState, index: int) -> Health:
    worker = state.workers[index]
    alive = worker.process is not None and worker.process.identity.alive()
    return Health(
        name=f"{worker.role}/{worker.instance}",
        address=str(worker.port_file),
        pid=worker.process.pid if worker.process is not None else None,
        healthy=alive and await ready_by(worker.port_file),
        restarts=worker.restarts,
        log=str(worker.log),
        report=await told_by(worker.port_file) if alive else None,
    )
