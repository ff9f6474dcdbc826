"""One downloader at a time: a file lock around whatever fills the shared cache."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.errors import explain_os_error


@contextmanager
def exclusively(folder: Path) -> Iterator[Path]:
    """Hold *folder* for this process while it is filled; waits for another holder.

    Raises:
        StackError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w", encoding="ascii")
    except OSError as error:
        raise explain_os_error(error, folder) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
