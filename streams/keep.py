"""Copy a log's topics to disk, as `--keep-log` does; a folder that will not do is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.errors import ConfigError
from schemas.logdir import LogDirError, LogWriter
from streams.log import Log
from streams.policies import Policies


async def keep_log(log: Log, policies: Policies, folder: Path) -> int:
    """Write every topic of *log*, as it is now, to *folder*; return the number of records."""
    count = 0
    with LogWriter(folder, await log.cluster_id(), log.prefix) as writer:
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


def check_folder(folder: Path) -> None:
    """Raise `ConfigError` if no log can be kept in *folder*."""
    try:
        with LogWriter(folder, "", "signalbox"):
            pass  # begun and given up: nothing shows at the folder
    except (LogDirError, OSError) as error:
        raise ConfigError(f"cannot keep a log in {folder}: {error}") from None
