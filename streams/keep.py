"""Copy a log's topics to disk, as `--keep-log` does; a folder that will not do is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.admission import MAX_BODY
from agents.errors import ConfigError, InvalidRecord
from schemas.claims import mentioned
from schemas.logdir import LogDirError, LogWriter
from streams.clients.claims import ClaimStore
from streams.log import Log
from streams.policies import Policies


async def keep_log(log: Log, policies: Policies, folder: Path, store: ClaimStore | None = None) -> int:
    """Write every topic of *log*, as it is now, to *folder*; return the number of records.

    What records claim of *store* is copied too, so that the folder is whole by itself; a body that the
    store no longer holds is left out. Raises `Unavailable` if the store does not answer.
    """
    count = 0
    with LogWriter(folder, await log.cluster_id(), log.prefix) as writer:
        claims: set[str] = set()
        for topic in await log.topics():
            partitions = await log.partitions(topic)
            writer.declare(topic, partitions)
            start = await log.begins([(topic, p) for p in range(partitions)])
            async for envelope in log.read(start):
                writer.append(envelope)
                count += 1
                if store is not None:
                    claims |= mentioned(envelope.value)
        if store is not None:
            await _copy(store, writer, claims)
        texts: Mapping[str, str] = {policy.hash: policy.normal_form for policy in policies.book}
        writer.close(texts)
    return count


async def _copy(store: ClaimStore, writer: LogWriter, claims: set[str]) -> None:
    for reference in sorted(claims):
        try:
            writer.keep(reference, await store.get(reference, 2 * MAX_BODY))
        except InvalidRecord:
            continue  # collected since, or a text that only looks like a reference


def check_folder(folder: Path) -> None:
    """Raise `ConfigError` if no log can be kept in *folder*."""
    try:
        with LogWriter(folder, "", "signalbox"):
            pass  # begun and given up: nothing shows at the folder
    except (LogDirError, OSError) as error:
        raise ConfigError(f"cannot keep a log in {folder}: {error}") from None
