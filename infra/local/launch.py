"""Become another program that dies with the process that started it.

Run as a script by path, with nothing of ours on the import path: it only asks the
kernel for a signal at the parent's death, which survives exec, and execs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
USAGE = 2


def main(arguments: list[str]) -> None:
    """Exec ``PARENT SIGNAL PROGRAM ARGS...`` so that it dies with PARENT."""
    parent, number, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the kernel was asked.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.execvp(command[0], command)  # noqa: S606 -- becoming the program is the purpose
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
