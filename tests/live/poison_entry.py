"""The product's command line with requests that hurt its decision role, as a defect of a step would.

`POISON_FOLDER` holds two files of request ids, one a line: deciding one of `exits` ends the process,
deciding one of `raises` raises. Without a file nothing is hurt; both are read anew each time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import agents.topology
from signalbox import main

EXIT = 86


def plant(folder: Path) -> None:
    """Let the decision role fail on the requests that the files in *folder* name."""
    decide = vars(agents.topology)["decide"]

    def listed(name: str, request_id: bytes) -> bool:
        path = folder / name
        return path.exists() and request_id.hex() in path.read_text().split()

    def hurt(policy: Any, *, request_id: bytes, **rest: Any) -> Any:
        if listed("exits", request_id):
            with (folder / "ended").open("a") as told:
                told.write(f"{request_id.hex()}\n")
            os._exit(EXIT)
        if listed("raises", request_id):
            message = "planted"
            raise ZeroDivisionError(message)
        return decide(policy, request_id=request_id, **rest)

    vars(agents.topology)["decide"] = hurt


if __name__ == "__main__":
    plant(Path(os.environ["POISON_FOLDER"]))
    main()
