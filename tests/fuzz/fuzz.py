"""Spoiled records through every role: `make fuzz`, which writes docs/results/fuzz.md.

In memory in batches, each on a log of its own; then on a broker, in one process with all roles.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.local.kafka import Kafka, KafkaOptions
from streams.app import load_registries, topic_counts
from streams.kafka import KafkaLog, KafkaSettings
from streams.memory import MemoryLog
from streams.settings import wall_clock
from streams.topics_admin import create_topics
from tests.fuzz.world import PARTITIONS, TOPICS, Fuzz, Outcome
from tests.live.kill_phase import Groups, sources_of

_BATCH = 50_000


async def in_memory(records: int, seed: int) -> Outcome:
    """Run *records* over a log in memory."""
    log = MemoryLog(topic_counts(["north"], PARTITIONS), lambda: wall_clock() // 1000)

    async def behind(roles: tuple[str, ...]) -> int:
        left = 0
        for role in roles:
            group = log._groups.get(f"{log.prefix}.{role}")
            for topic in sources_of(role):
                for p in range(PARTITIONS):
                    done = group.commits.get((topic, p)) if group is not None else None
                    left += len(log._records[topic, p]) - (done.offset if done is not None else 0)
        return left

    return await Fuzz(log, seed, behind).run(records)


async def on_kafka(records: int, seed: int, folder: Path) -> Outcome:
    """Run *records* over a broker in *folder*."""
    kafka = Kafka(KafkaOptions(folder=folder))
    settings = KafkaSettings(await kafka.start())
    log = KafkaLog(settings)
    groups = Groups(log, settings.bootstrap)
    try:
        await create_topics(settings, ["north"], partitions=PARTITIONS)
        await log.start()

        async def behind(roles: tuple[str, ...]) -> int:
            found = [await groups.behind(role) for role in roles]
            return sum(end - committed for role in found for committed, end in role.values())

        return await Fuzz(log, seed, behind).run(records)
    finally:
        await groups.close()
        await log.stop()
        await kafka.stop()


async def _run(memory: int, broker: int, seed: int) -> tuple[list[Outcome], list[Outcome]]:
    found = []
    for number, start in enumerate(range(0, memory, _BATCH)):
        found.append(await in_memory(min(_BATCH, memory - start), seed + number))
        said = "" if found[-1].ok else f": {wrong(found[-1])}"
        sys.stderr.write(f"fuzz: {start + _BATCH} in memory, {found[-1].seconds:.0f} s{said}\n")
    if not broker:
        return found, []
    with TemporaryDirectory() as folder:
        return found, [await on_kafka(broker * len(TOPICS), seed, Path(folder))]


def wrong(outcome: Outcome) -> str:
    """Return what *outcome* has that it should not have."""
    return (
        f"died {outcome.died}, {outcome.unanswered} unanswered, {outcome.buried_good} good ones buried, "
        f"{len(outcome.unburied)} bad ones not: {outcome.unburied[:5]}"
    )


def told(where: str, outcomes: Sequence[Outcome]) -> str:
    """Return a row of the table."""
    bad: Counter[str] = sum((o.bad for o in outcomes), Counter())
    cells = (
        where,
        sum(o.good for o in outcomes) + bad.total(),
        sum(o.good for o in outcomes),
        bad.total(),
        sum(o.letters for o in outcomes),
        sum(len(o.died) for o in outcomes),
        sum(len(o.unburied) for o in outcomes),
        sum(o.unanswered + o.buried_good for o in outcomes),
        round(sum(o.seconds for o in outcomes)),
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def markdown(memory: Sequence[Outcome], broker: Sequence[Outcome], command: str) -> str:
    """Return docs/results/fuzz.md."""
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    bad: Counter[str] = sum((o.bad for o in (*memory, *broker)), Counter())
    rows = [told("memory", memory)] + ([told("broker", broker)] if broker else [])
    return "\n".join(
        [
            "# Spoiled records",
            "",
            f"`{command}` (load average {load}).",
            f"Good and spoiled records on {len(TOPICS)} topics that roles read, with the limit on dead",
            "letters off. A spoiled record that can still be read is cut instead. `requests` has four",
            "readers, so letters are more than bad records.",
            "",
            "| log | records | good | bad | letters | workers died | bad lost | good not done | s |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            "Spoiled how: " + ", ".join(f"{name} {count}" for name, count in sorted(bad.items())) + ".",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; exit code 0 if no worker died, every bad record was kept and every good one done, else 1."""
    load_registries()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzz", description=__doc__)
    parser.add_argument("--memory", type=int, default=1_000_000, help="records in memory")
    parser.add_argument("--broker", type=int, default=20_000, help="records on each topic of a broker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="write the table there")
    given = parser.parse_args(arguments)
    memory, broker = asyncio.run(_run(given.memory, given.broker, given.seed))
    command = f"python -m tests.fuzz.fuzz --memory {given.memory} --broker {given.broker} --seed {given.seed}"
    text = markdown(memory, broker, command)
    if given.write is not None:
        given.write.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    for outcome in (*memory, *broker):
        for line in (*outcome.died, *outcome.unburied[:5]):
            sys.stderr.write(f"fuzz: {line}\n")
    return 0 if all(outcome.ok for outcome in (*memory, *broker)) else 1


if __name__ == "__main__":
    sys.exit(main())
