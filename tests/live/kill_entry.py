"""The product's command line as a kill run starts it: with ports that can go wrong, and faults planted.

`KILL_CLOCK` names a file; while it holds a number, this process's clock is that many ms off. While the
file that `KILL_FULL` names exists, the claim store has no room. `KILL_SABOTAGE` names a fault of
`tests.live.kill_sabotage`. Without any of them it is the product unchanged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import streams.worker
from signalbox import main
from streams.clients.claims import FileClaims, free_bytes
from streams.settings import wall_clock

CLOCK, FULL, SABOTAGE = "KILL_CLOCK", "KILL_FULL", "KILL_SABOTAGE"
_LOOK_S = 0.1


def shifted(path: Path) -> Callable[[], int]:
    """Return the wall clock (us since the epoch), shifted by the ms that *path* holds, if it exists."""
    state = [0.0, 0]

    def clock() -> int:
        if time.monotonic() >= state[0]:
            state[0] = time.monotonic() + _LOOK_S
            try:
                state[1] = int(path.read_text()) * 1000
            except (OSError, ValueError):
                state[1] = 0
        return wall_clock() + int(state[1])

    return clock


def room(full: Path) -> Callable[[Path], int]:
    """Return how many bytes are free below a folder: none while *full* exists."""
    return lambda folder: 0 if full.exists() else free_bytes(folder)


def plant() -> None:
    """Plant what the environment asks for."""
    path = os.environ.get(CLOCK)
    if path:
        assert "wall_clock" in vars(streams.worker), "the worker's clock moved: shift it where it is now"
        vars(streams.worker)["wall_clock"] = shifted(Path(path))
    full = os.environ.get(FULL)
    if full:
        defaults = FileClaims.__init__.__kwdefaults__ or {}
        assert "free" in defaults, "the folder of claims has no port for free space any more"
        defaults["free"] = room(Path(full))
    name = os.environ.get(SABOTAGE)
    if name:
        from tests.live.kill_sabotage import SABOTAGES  # noqa: PLC0415 - only a sabotaged worker needs it

        SABOTAGES[name].plant()


if __name__ == "__main__":
    plant()
    main()
