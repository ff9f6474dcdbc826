"""Measure what a request costs and how long it takes: `python -m tests.live.bench`.

Real Kafka, real Triton, worker processes, simulated providers that answer at once. `--against DIR`
measures another tree of the project in the same run, turn by turn, so that machines do not matter.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agents.policy import Policy
from infra.local.routing import DEFAULT_POLICY
from streams.app import load_registries
from streams.cli import connected
from streams.settings import settings
from tests.live.bench_load import Bench, batch, idle, open_loop
from tests.live.bench_report import Outcome, markdown, summary
from tests.live.bench_stack import Benched, Code, constant_as_encoder, stack_of, workers_of
from triton_models.build import default_cache

ROOT = Path(__file__).parents[2]
_WARM_UP = 300
_IDLE_S = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: requests by classifier, the open loop, and how often in turn."""

    requests: dict[str, int]
    rate: float
    seconds: float
    rounds: int
    codes: Sequence[Code]


async def measure(plan: Plan, classifier: str, folder: Path) -> list[Outcome]:
    """Return an outcome for each round and code, taken in turn on one stack."""
    load_registries()
    policy = Policy.parse(DEFAULT_POLICY.read_text(encoding="utf-8"), str(DEFAULT_POLICY))
    repository = constant_as_encoder(folder, default_cache()) if classifier == "constant" else None
    lines = (ROOT / "infra" / "demo" / "requests.jsonl").read_bytes().splitlines()
    sources = [orjson.loads(line) for line in lines if line.strip()]
    outcomes = []
    async with stack_of(folder / "stack", Benched(policy, repository)) as stack:
        found = settings(broker=stack.endpoints.broker)
        for turn in range(plan.rounds):
            for code in plan.codes:
                mark = f"{code.name}-{turn}"
                async with workers_of(stack, code) as workers, connected(found) as world:
                    bench = Bench(world, policy, stack, workers, sources, folder)
                    outcomes.append(await _phases(bench, plan, code.name, classifier, mark))
    return outcomes


async def _phases(bench: Bench, plan: Plan, code: str, classifier: str, mark: str) -> Outcome:
    await batch(bench, _WARM_UP, f"{mark}-warm")
    quiet = await idle(bench, _IDLE_S)
    loop = None
    if plan.seconds:
        loop = await open_loop(bench, plan.rate, plan.seconds, f"{mark}-loop")
    full = await batch(bench, plan.requests[classifier], f"{mark}-batch")
    outcome = Outcome(code, classifier, full, quiet, loop)
    sys.stderr.write(f"{orjson.dumps(summary(outcome)).decode()}\n")
    return outcome


def report(found: Sequence[dict[str, Any]], plan: Plan, words: Sequence[str]) -> str:
    """Return the results page."""
    when = dt.datetime.now(tz=dt.UTC).date().isoformat()
    command = " ".join(["make bench", *([f"ARGS='{' '.join(words)}'"] if words else [])])
    about = f"""\
# What a request costs

`{command}` on {when}: {platform.system()} {platform.machine()}, Python {platform.python_version()},
{os.cpu_count()} cores, shared by everything named here and by whatever else the load average tells of.
Real Kafka (one node), real Triton on CPU, one worker process per role, the demo's policy, the demo's
requests over and over, simulated providers that answer at once. CPU is user plus system time of
`/proc/PID/stat`; `own` is the workers and the submitting client, without broker, Triton and simulator.
The open loop sends {plan.rate:g} requests/s for {plan.seconds:g} s; latency is the log's timestamp of the
result minus the moment the request was due, all of it ours since providers take no time.
"""
    return f"{about}\n{markdown(found)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; write and print the tables; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.live.bench", description=__doc__)
    parser.add_argument(
        "--classifiers", nargs="+", choices=("constant", "encoder"), default=["constant", "encoder"]
    )
    parser.add_argument("--requests", type=int, default=3000, help="with the constant classifier")
    parser.add_argument("--encoder-requests", type=int, default=1000, help="with the real encoder")
    parser.add_argument("--rate", type=float, default=50.0, help="of the open loop, requests/s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the open loop; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="other trees, measured in turn")
    parser.add_argument("--out", type=Path, help="where the page goes; default: nowhere, it is printed")
    given = parser.parse_args(words)
    # What every fresh broker answers at first is no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    codes = [*(Code(path.name, path.absolute()) for path in given.against), Code("this", ROOT)]
    requests = {"constant": given.requests, "encoder": given.encoder_requests}
    plan = Plan(requests, given.rate, given.seconds, given.rounds, codes)
    found: list[dict[str, Any]] = []
    for classifier in given.classifiers:
        with tempfile.TemporaryDirectory(prefix="signalbox-bench-") as folder:
            found += [summary(outcome) for outcome in asyncio.run(measure(plan, classifier, Path(folder)))]
    page = report(found, plan, words)
    sys.stdout.write(page)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(page, encoding="utf-8")
        given.out.with_suffix(".json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if any(one["failed"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
