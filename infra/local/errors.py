"""Why the local stack could not do what was asked.

Every message says what happened, where, and what to do about it.

StackError                  exit 3: a dependency is down
├── MissingDependency       something has to be installed
├── DownloadFailed          a pinned file could not be had or is not the pinned one
├── StartFailed             a process died, or was not healthy in time
│   └── PortTaken           its port belongs to somebody else
├── DiskFull                no room for data or downloads
├── NothingRunning          there is no stack to speak of
└── UsageError              exit 2: the request itself is wrong
    └── AlreadyRunning      a stack runs in this folder
"""

import errno
from pathlib import Path
from typing import ClassVar


class StackError(Exception):
    """The local stack could not do what was asked."""

    exit_code: ClassVar[int] = 3


class MissingDependency(StackError):
    """Something that the stack needs is not on this machine."""


class DownloadFailed(StackError):
    """A pinned file could not be fetched, or differs from its pin."""


class StartFailed(StackError):
    """A component died while starting, or did not become healthy in time."""


class PortTaken(StartFailed):
    """A component's port is in use."""


class DiskFull(StackError):
    """There is no room left where data or downloads go."""


class NothingRunning(StackError):
    """No stack runs in the folder."""


class UsageError(StackError):
    """The request itself is wrong."""

    exit_code: ClassVar[int] = 2


class AlreadyRunning(UsageError):
    """A stack runs in the folder already."""


def explain_os_error(error: OSError, place: Path) -> StackError:
    """Say in the user's words why *place* could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(
            f"no room left on the disk of {place}: free some, or name another folder (--dir, --cache)"
        )
    return StackError(
        f"cannot write {place}: {error.strerror or error}; check its owner and mode, or name another folder"
    )
