"""Copy a log's topics to disk, as `--keep-log` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from schemas.logdir import LogWriter
from streams.log import Log
from streams.policies import Policies


async def keep_log(log: Log, policies: Policies, folder: Path) -> int:
    """Write every topic of *log*, as it is now, to *folder*; return the number of records."""
    writer = LogWriter(folder, await log.cluster_id(), log.prefix)
    count = 0
    for topic in await log.topics():
        partitions = await log.partitions(topic)
        writer.declare(topic, partitions)
        start = await log.begins([(topic, p) for p in range(partitions)])
        async for envelope in log.read(start):
            writer.append(envelope)
            count += 1
    texts: Mapping[str, str] = {policy.hash: policy.normal_form for policy in policies.book}
    writer.close(texts)
    return count
