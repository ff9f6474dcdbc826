"""Which process is meant: a pid alone is reused, a pid with its start time is not.

Reads Linux's /proc and sends signals; starts nothing.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MARKER = "SIGNALBOX_STACK_ID"


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc says of one process."""

    state: str
    parent: int
    session: int
    started: int


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: its pid and its start time in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Return the identity of the running process *pid*, None if there is none."""
        stat = read_stat(pid)
        return None if stat is None else cls(pid, stat.started)

    def alive(self) -> bool:
        """Return whether this very process still runs (a zombie does not)."""
        stat = read_stat(self.pid)
        return stat is not None and stat.started == self.started

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False if it is gone.

        A pidfd is opened before the start time is compared, so a pid that is
        reused in between is never hit.
        """
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def read_stat(pid: int) -> Stat | None:
    """Return what /proc says of *pid*; None if it is gone or a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and parentheses: fields start after the last one.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    return Stat(state=fields[0], parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))


def carries(pid: int, marker: str) -> bool:
    """Return whether *pid* was started with *marker* in its environment."""
    try:
        environ = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{MARKER}={marker}".encode() in environ.split(b"\0")


def marked(marker: str, *, session: int | None = None) -> Iterator[Identity]:
    """Yield the processes that carry *marker*, of one *session* or of all."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        stat = read_stat(pid)
        if stat is None or (session is not None and stat.session != session):
            continue
        if carries(pid, marker):
            yield Identity(pid, stat.started)
