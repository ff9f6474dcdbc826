"""The file in which a stack says what runs: ``state.json``, always whole.

Read by other processes at any moment, also after the writer was killed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.local.deployment import Endpoints
from infra.local.errors import AlreadyRunning, StackError, explain_os_error
from infra.local.identity import Identity

STATE = "state.json"
LOCK = "lock"


class Phase(StrEnum):
    """Where a stack is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ProcessState(_Value):
    """A process that can be recognised again."""

    pid: int
    started: int

    @classmethod
    def of(cls, identity: Identity) -> "ProcessState":
        """Return *identity* in the form of the file."""
        return cls(pid=identity.pid, started=identity.started)

    @property
    def identity(self) -> Identity:
        """Which process it is."""
        return Identity(self.pid, self.started)


class ComponentState(_Value):
    """A component; without a process it is external."""

    name: str
    address: str
    process: ProcessState | None = None
    settings: Path | None = None
    models: tuple[str, ...] = ()
    # What answers 200 when it is healthy; empty for a broker, which is asked in its protocol.
    checks: tuple[str, ...] = ()


class WorkerState(_Value):
    """A worker; without a process it waits to be started again."""

    role: str
    instance: int
    process: ProcessState | None = None
    restarts: int = 0
    log: Path
    port_file: Path


class StackState(_Value):
    """Everything that ``status`` and ``down`` need to know."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    phase: Phase
    marker: str
    supervisor: ProcessState
    doing: str = ""
    error: str = ""
    exit_code: int = 0
    components: tuple[ComponentState, ...] = ()
    # Set once every component is healthy and the topics are made.
    endpoints: Endpoints | None = None
    workers: tuple[WorkerState, ...] = ()

    def processes(self) -> tuple[Identity, ...]:
        """Return every process but the supervisor: workers first, then components."""
        found = [*(one.process for one in self.workers), *(one.process for one in self.components)]
        return tuple(process.identity for process in found if process is not None)


def write_state(folder: Path, state: StackState) -> None:
    """Replace the state file; a reader sees the old or the new one, never a part.

    Raises:
        StackError: the folder cannot be written.
    """
    beside = folder / f"{STATE}.{os.getpid()}"
    try:
        beside.write_text(state.model_dump_json(indent=1), encoding="utf-8")
        beside.replace(folder / STATE)
    except OSError as error:
        raise explain_os_error(error, folder / STATE) from error


def read_state(folder: Path) -> StackState | None:
    """Return the state in *folder*, None if there never was one.

    Raises:
        StackError: the file is not one of ours.
    """
    try:
        text = (folder / STATE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise explain_os_error(error, folder / STATE) from error
    try:
        return StackState.model_validate_json(text)
    except ValidationError as error:
        raise StackError(
            f"{folder / STATE} is not a state file of this version ({error.error_count()} errors): "
            "stop what runs "
            "there with the version that started it, then delete the file"
        ) from error


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the one stack of *folder*; the kernel lets go when this process ends.

    Raises:
        AlreadyRunning: another process is.
        StackError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w", encoding="ascii")
    except OSError as error:
        raise explain_os_error(error, folder) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"a stack runs in {folder} already: `signalbox status --dir {folder}` shows it, "
                "`signalbox down "
                f"--dir {folder}` stops it; --dir names another folder for another stack"
            ) from error
        yield


def held(folder: Path) -> bool:
    """Return whether a stack runs in *folder*."""
    try:
        with (folder / LOCK).open("r", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
