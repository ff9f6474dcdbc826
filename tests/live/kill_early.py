"""The product's command line with a planted fault: records count as done before their work is.

`SABOTAGE=commit_early` runs its workers through here, to show that the kill run sees what it must.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import streams.app
from schemas.envelope import Envelope
from signalbox import main
from streams.prefix import Segment
from streams.runners.mapping import MapRunner

_WORK_S = 1.0
"""Longer than a commit's interval, so that a kill finds work whose source is committed."""


class EarlyRunner(MapRunner):
    """Commits past what it has only begun."""

    async def _run(self, segment: Segment, chunk: Sequence[Envelope]) -> None:
        segment.done = True
        if self.group != "admission":  # it takes records one by one: the run would never end
            await asyncio.sleep(_WORK_S)
        await super()._run(segment, chunk)


if __name__ == "__main__":
    vars(streams.app)["MapRunner"] = EarlyRunner
    main()
