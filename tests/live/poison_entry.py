"""The product's command line with requests that hurt the role that runs them, as a defect of a step would.

`POISON_FOLDER` holds files of request ids, one a line: deciding one of `exits` ends the process, deciding
one of `raises` raises, the answer to one of `answers` ends the process that reads it. Without a file
nothing is hurt; all are read anew each time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import agents.topology
import streams.runners.calling
from signalbox import main

EXIT = 86


def plant(folder: Path) -> None:
    """Let roles fail on the requests that the files in *folder* name."""
    decide = vars(agents.topology)["decide"]
    conclude = vars(streams.runners.calling)["conclude"]

    def listed(name: str, request_id: bytes) -> bool:
        path = folder / name
        return path.exists() and request_id.hex() in path.read_text().split()

    def end(request_id: bytes) -> None:
        with (folder / "ended").open("a") as told:
            told.write(f"{request_id.hex()}\n")
        os._exit(EXIT)

    def concluded(job: Any, *rest: Any) -> Any:
        if listed("answers", job.request_id):
            end(job.request_id)
        return conclude(job, *rest)

    def hurt(policy: Any, *, request_id: bytes, **rest: Any) -> Any:
        if listed("exits", request_id):
            end(request_id)
        if listed("raises", request_id):
            message = "planted"
            raise ZeroDivisionError(message)
        return decide(policy, request_id=request_id, **rest)

    vars(agents.topology)["decide"] = hurt
    vars(streams.runners.calling)["conclude"] = concluded


if __name__ == "__main__":
    plant(Path(os.environ["POISON_FOLDER"]))
    main()
