"""Show that a slow classifier makes lag, not late signals: many lines through a Triton of 200 texts/s.

Run as ``python -m tests.live.slow_signal``; prints what it measured as one JSON object and exits 1 if a
signal was late, a request failed, or the decision role never paused its faster input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from agents.policy import Policy
from infra.local.deployment import Needs
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from infra.local.workers import Worker
from streams.app import load_registries
from streams.batch import BatchOptions, submit, wait
from streams.cli import connected
from streams.runs import counts
from streams.settings import settings
from triton_models.build import Options, build, default_cache

POLICY = """
version: v0.3
providers:
  defaults: {default_model: m}
  models: [{name: m, backend_refs: [{name: p}]}]
routing:
  signals:
    keywords: [{name: hello, operator: OR, keywords: [hello]}]
    embeddings: [{name: greeting, threshold: 0.5, candidates: [good morning]}]
  decisions:
    - name: greet
      priority: 1
      rules: {operator: OR, conditions: [{type: keyword, name: hello}, {type: embedding, name: greeting}]}
      modelRefs: [{model: m}]
"""
PROFILE = "providers: {p: {models: {m: {}}}}\n"
EVERY_S = 2.0


class SlowRouting(Routing):
    """The usual deployment, over a repository whose encoder takes a fixed time for each text."""

    def __init__(self, policy: Policy, repository: Path) -> None:
        super().__init__(policy)
        self._repository = repository

    def needs(self) -> Needs:
        """Return the usual needs, from our repository."""
        return replace(super().needs(), repository=self._repository)


@dataclass(slots=True)
class Samples:
    """What was seen of the decision worker while the batch ran."""

    rss_mib: list[float] = field(default_factory=list)
    in_flight: list[float] = field(default_factory=list)
    paused: int = 0
    late: float = 0


def slow_repository(folder: Path, delay_ms: float) -> Path:
    """Return a repository in *folder* whose `encoder` answers one text each *delay_ms*."""
    repository = folder / "repository"
    build(repository, default_cache(), Options(models=("constant",), delay_ms=delay_ms))
    model = (repository / "constant").rename(repository / "encoder")
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "constant"', 'name: "encoder"'))
    return repository


def rss_mib(pid: int | None) -> float:
    """Return the resident memory of process *pid* in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * 4096 / 2**20, 1)


async def watch(worker: Worker, samples: Samples) -> None:
    """Sample memory and metrics of *worker* until cancelled."""
    port = int(worker.port_file.read_text())
    async with aiohttp.ClientSession() as session:
        while True:
            await asyncio.sleep(EVERY_S)
            samples.rss_mib.append(rss_mib(worker.pid))
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                families = text_string_to_metric_families(await response.text())
            found = {s.name: s.value for f in families for s in f.samples}
            samples.in_flight.append(found.get("signalbox_in_flight_records", 0))
            samples.paused += found.get("signalbox_paused_partitions", 0) > 0
            samples.late = found.get("signalbox_late_signals", 0)


async def measure(folder: Path, lines: int, delay_ms: float) -> dict[str, object]:
    """Run *lines* requests and return what was measured."""
    load_registries()
    (folder / "profile.yaml").write_text(PROFILE)
    batch = folder / "batch.jsonl"
    with batch.open("w") as file:
        for number in range(lines):
            body = {"model": "auto", "messages": [{"role": "user", "content": f"good day, number {number}"}]}
            file.write(json.dumps({"custom_id": f"r{number}", "body": body}) + "\n")
    routing = SlowRouting(Policy.parse(POLICY), slow_repository(folder, delay_ms))
    config = StackConfig(folder=folder / "stack", profile=folder / "profile.yaml")
    samples = Samples()
    async with LocalStack(config, routing) as stack:
        workers = await stack.start_workers()
        decision = next(w for w in workers if w.spec.role == "decision")
        watching = asyncio.create_task(watch(decision, samples))
        began = time.monotonic()
        async with connected(settings(broker=stack.broker.address)) as world:
            submission = await submit(world, batch, routing.policy, BatchOptions())
            await wait(world, submission)
            totals = counts(submission.view)
        took = time.monotonic() - began
        watching.cancel()
    later = samples.rss_mib[len(samples.rss_mib) // 4 :] or [0.0]
    return {
        **totals,
        "seconds": round(took, 1),
        "per_second": round(lines / took, 1),
        "late_signals": samples.late,
        "samples": len(samples.rss_mib),
        "samples_with_a_paused_input": samples.paused,
        "decision_in_flight_max": max(samples.in_flight, default=0),
        "decision_rss_mib_after_a_quarter": later[0],
        "decision_rss_mib_max": max(later),
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--delay-ms", type=float, default=5.0)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="signalbox-slow-") as folder:
        found = asyncio.run(measure(Path(folder), given.lines, given.delay_ms))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    ok = (
        found["completed"] == given.lines
        and not found["late_signals"]
        and found["samples_with_a_paused_input"]
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
