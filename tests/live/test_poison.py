"""What a request that its step cannot bear costs on a real stack: itself, until it is redriven."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.policy import Policy
from infra.local.events import StackEvent, WorkerDied
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from infra.local.workers import Worker
from schemas.identity import custom_request_id
from streams.app import load_registries
from tests.architecture.repository import ROOT
from tests.live.poison_entry import EXIT

pytestmark = [pytest.mark.live, pytest.mark.timeout(900), pytest.mark.usefixtures("kafka_jars")]

POLICY = ROOT / "infra/policies/quickstart.yaml"
LINES, ENDS, RAISES = 24, 7, 12
"""How many requests, and the numbers of those that end their process and make their step raise."""


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code and its JSON."""

    code: int
    report: Any


async def call(broker: str, *arguments: str) -> Done:
    """Run `signalbox` with --json against *broker*."""
    argv = ("-m", "signalbox", *arguments, "--broker", broker, "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await asyncio.wait_for(process.communicate(), 400)
    assert process.returncode is not None
    return Done(process.returncode, json.loads(out) if out else None)


async def started(stack: LocalStack, folder: Path) -> None:
    """Start every worker, the decision role with what hurts it."""
    env = {"POISON_FOLDER": str(folder)}
    workers: list[Worker] = []
    for spec in stack.deployment.workers(stack.endpoints):
        hurt = spec
        if spec.role == "decision":
            argv = tuple("tests.live.poison_entry" if word == "signalbox" else word for word in spec.argv)
            hurt = replace(spec, argv=argv, env={**spec.env, **env})
        workers.append(await stack.spawn_worker(hurt))
    for worker in workers:
        await worker.ready()


def id_of(number: int) -> str:
    """Return the id of request *number*."""
    return custom_request_id("default", "poison", f"c-{number}").hex()


def write_file(path: Path) -> None:
    """Write the batch."""
    rows = []
    for n in range(1, LINES + 1):
        body = {"model": "auto", "messages": [{"role": "user", "content": f"please explain {n}"}]}
        rows.append(
            orjson.dumps(
                {"custom_id": f"c-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            )
        )
    path.write_bytes(b"\n".join(rows) + b"\n")


def failures(path: Path) -> dict[str, str]:
    """Return the error code of each line of results that is one."""
    rows = [json.loads(row) for row in path.read_bytes().splitlines()]
    assert len(rows) == LINES
    return {row["custom_id"]: row["error"]["code"] for row in rows if row["error"] is not None}


async def test_what_ends_or_fails_its_step_is_set_aside_told_and_redriven(tmp_path: Path) -> None:
    """Two requests are error lines and their neighbours served; repaired and redriven, one is answered."""
    load_registries()
    policy = Policy.parse(POLICY.read_text(encoding="utf-8"), str(POLICY))
    heard: list[StackEvent] = []
    batch, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_file(batch)
    (tmp_path / "exits").write_text(id_of(ENDS))
    (tmp_path / "raises").write_text(id_of(RAISES))
    stack = LocalStack(StackConfig(tmp_path / "stack", triton=False), Routing(policy, 1), report=heard.append)
    async with stack:
        await started(stack, tmp_path)
        broker = stack.endpoints.broker
        run = ("submit", str(batch), "--run", "poison", "--wait", "--out")
        first = await call(broker, *run, str(out))
        told = failures(out)
        listed = await call(broker, "dlq", "list")
        (tmp_path / "raises").unlink()
        redriven = await call(broker, "dlq", "redrive", "--request", id_of(RAISES))
        again = await call(broker, *run, str(tmp_path / "again.jsonl"))
        left = failures(tmp_path / "again.jsonl")

    assert first.code == 1
    assert told == {f"c-{ENDS}": "dead_lettered", f"c-{RAISES}": "dead_lettered"}
    letters = {
        row["request_id"]: (row["stage"], row["error"], row["attempts"]) for row in listed.report["letters"]
    }
    assert letters == {
        id_of(ENDS): ("decision", "PoisonRecord", 3),
        id_of(RAISES): ("decision", "ZeroDivisionError", 1),
    }
    deaths = [event for event in heard if isinstance(event, WorkerDied) and event.exit_code == EXIT]
    assert {event.role for event in deaths} == {"decision"}
    assert len((tmp_path / "ended").read_text().split()) == len(deaths)
    assert 3 <= len(deaths) <= 4  # the first had neighbours in flight and may count for nobody
    assert redriven.code == 0
    assert left == {f"c-{ENDS}": "dead_lettered"}
    assert (again.code, again.report["new"]) == (1, 0)
