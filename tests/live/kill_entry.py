"""The product's command line as a kill run starts it: with a clock that can be shifted, and faults planted.

`KILL_CLOCK` names a file; while it holds a number, this process's clock is that many ms off.
`KILL_SABOTAGE` names a fault of `tests.live.kill_sabotage`. Without either it is the product unchanged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import streams.worker
from signalbox import main
from streams.settings import wall_clock

CLOCK, SABOTAGE = "KILL_CLOCK", "KILL_SABOTAGE"
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


def plant() -> None:
    """Plant what the environment asks for."""
    path = os.environ.get(CLOCK)
    if path:
        assert "wall_clock" in vars(streams.worker), "the worker's clock moved: shift it where it is now"
        vars(streams.worker)["wall_clock"] = shifted(Path(path))
    name = os.environ.get(SABOTAGE)
    if name:
        from tests.live.kill_sabotage import SABOTAGES  # noqa: PLC0415 - only a sabotaged worker needs it

        SABOTAGES[name].plant()


if __name__ == "__main__":
    plant()
    main()
