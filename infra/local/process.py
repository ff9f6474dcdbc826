"""One child process: in a session of its own, logging to a file, never outliving us.

It dies with the process that started it (the kernel sees to that) and takes its own
children with it when stopped: they are found by session and by a marker in their environment.
"""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.local import launch
from infra.local.errors import StartFailed, explain_os_error
from infra.local.identity import MARKER, Identity, marked
from infra.local.machine import environment

GRACE = 10.0
TAIL_LINES = 15
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: arguments, log file, additions to the environment, folder."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    # What the kernel sends when the starter dies.
    parting: signal.Signals = signal.SIGKILL


class Process:
    """A running child process."""

    def __init__(
        self, command: Command, child: asyncio.subprocess.Process, identity: Identity, marker: str
    ) -> None:
        self.command = command
        self.identity = identity
        self.marker = marker
        self._child = child

    @classmethod
    async def spawn(cls, command: Command, *, marker: str | None = None) -> "Process":
        """Start *command*; *marker* is what its descendants are recognised by.

        Raises:
            StackError: the log cannot be written, or the program not started.
        """
        marker = marker or secrets.token_hex(8)
        try:
            command.log.parent.mkdir(parents=True, exist_ok=True)
            log = command.log.open("ab")
        except OSError as error:
            raise explain_os_error(error, command.log) from error
        with log:
            try:
                child = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", launch.__file__,
                    str(os.getpid()), str(int(command.parting)), *command.argv,
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    cwd=command.folder, env={**environment(), **command.env, MARKER: marker},
                )  # fmt: skip
            except OSError as error:
                raise StartFailed(f"cannot start {command.name} ({command.argv[0]}): {error}") from error
        identity = Identity.of(child.pid)
        if identity is None:
            await child.wait()
            raise StartFailed(f"{command.name} died at once\n{tail(command.log)}")
        return cls(command, child, identity, marker)

    @property
    def pid(self) -> int:
        """The process id, which is also its session and process group."""
        return self.identity.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._child.returncode is None and self.identity.alive()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._child.returncode

    async def wait(self) -> int:
        """Return the exit code when the process has ended."""
        return await self._child.wait()

    async def stop(self, grace: float = GRACE) -> None:
        """Ask to end (SIGTERM), insist after *grace* seconds, and clear what it left."""
        if self.running:
            self.identity.send(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        """End the process and its descendants at once (SIGKILL)."""
        if self.running:
            self.identity.send(signal.SIGKILL)
        await self._child.wait()
        await clear_session(self.pid, self.marker)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of the log."""
        return tail(self.command.log, lines)


async def clear_session(session: int, marker: str) -> None:
    """Kill what is left of a session, and return when nothing of it runs."""
    await clear_marked(lambda: marked(marker, session=session))


async def clear_marked(find: Callable[[], Iterable[Identity]], within: float = 5.0) -> None:
    """Kill what *find* yields until it yields nothing, for *within* seconds at most."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left := list(find()):
        for identity in left:
            identity.send(signal.SIGKILL)
        if loop.time() > deadline:
            return
        await asyncio.sleep(0.02)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last *lines* of *log*, empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
