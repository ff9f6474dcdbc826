"""The folder that a demo fills: ours by a marker that is locked while a demo runs; never somebody else's."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import AlreadyRunning, UsageError, explain_os_error

MARKER = ".signalbox-demo"


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Where each thing of a demo lies."""

    root: Path

    @property
    def results(self) -> Path:
        """One line for each line of the input."""
        return self.root / "results.jsonl"

    @property
    def log(self) -> Path:
        """Every record of every topic."""
        return self.root / "log"

    @property
    def stack(self) -> Path:
        """Data and logs of what was started."""
        return self.root / "stack"

    @property
    def report(self) -> Path:
        """The report as JSON."""
        return self.root / "report.json"


@contextmanager
def cleared(root: Path) -> Iterator[DemoFolder]:
    """Hold *root*, emptied of what an earlier demo left.

    Raises:
        UsageError: it holds something else.
        AlreadyRunning: a demo runs in it.
        StackError: it cannot be written.
    """
    marker = root / MARKER
    if root.exists() and not marker.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is no folder of a demo: name another one with --dir")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with marker.open("a") as held:
            _lock(held.fileno(), root)
            for entry in root.iterdir():
                if entry.name != MARKER:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            yield DemoFolder(root)
    except OSError as error:
        raise explain_os_error(error, root) from error


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunning(f"a demo runs in {root}: wait for it, or give another --dir") from None
