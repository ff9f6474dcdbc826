"""The whole product as its user runs it: one stack, real Kafka and Triton, simulated providers.

The tests share one stack and run in their order: the last two hurt it and stop it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from infra.local.routing import DEFAULT_POLICY
from schemas.codec import Codec
from schemas.identity import inbox_request_id
from schemas.logdir import LogDir
from tests.architecture.repository import ROOT

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kafka_jars", "triton_environment"),
]

LINES = 60
CODEC = Codec()


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, its JSON object, what it said."""

    code: int
    report: Any
    said: str


@dataclass(frozen=True)
class Stack:
    """A running stack: its folder and what `up --json` printed."""

    folder: Path
    up: dict[str, Any]

    def call(self, *arguments: str) -> Done:
        """Run a command on this stack."""
        return call(*arguments, "--dir", str(self.folder / "stack"))


def call(*arguments: str) -> Done:
    """Run `signalbox` with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "signalbox", *arguments, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return Done(done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start everything that the bundled policy needs; stop it after the last test."""
    folder = tmp_path_factory.mktemp("end-to-end")
    where = ("--dir", str(folder / "stack"))
    started = call("up", "--workers", *where)
    assert started.code == 0, started.said
    lines = (ROOT / "infra/demo/requests.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "in.jsonl").write_bytes(b"".join([b"no json\n", *lines[:: len(lines) // LINES][:LINES]]))
    yield Stack(folder, started.report)
    call("down", *where)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent to look does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until_good(stack: Stack) -> None:
    """Wait until `status` finds nothing wrong: a loaded machine may keep it waiting for an answer."""
    deadline = time.monotonic() + 120
    while (found := stack.call("status")).code != 0:
        assert time.monotonic() < deadline, found


def test_up_prints_its_contract_once_all_is_healthy(stack: Stack) -> None:
    """The keys are there, every worker lives, and status agrees."""
    assert {"broker", "triton", "providers", "workers", "supervisor_pid"} <= stack.up.keys()
    roles = [worker["role"] for worker in stack.up["workers"]]
    assert sorted(roles) == [
        "admission", "decision", "dispatch", "provider.north", "provider.south", "retry",
        "signals.embedding", "signals.heuristics",
    ]  # fmt: skip
    assert all(alive(worker["pid"]) for worker in stack.up["workers"])
    until_good(stack)


def test_a_batch_comes_back_is_explained_and_proved_again(stack: Stack) -> None:
    """Every line has its result, one request its explanation, and every decision is reproduced."""
    file, out, log = (str(stack.folder / name) for name in ("in.jsonl", "out.jsonl", "log"))
    done = stack.call("submit", file, "--wait", "--out", out, "--keep-log", log, "--run", "e2e")
    assert (done.code, done.report["run"], done.report["new"]) == (1, "e2e", LINES), done.said
    rows = [json.loads(row) for row in Path(out).read_bytes().splitlines()]
    assert [row["line"] for row in rows] == list(range(1, LINES + 2))
    assert rows[0]["error"]["code"] == "invalid_json"
    assert all(row["error"] is None or row["signalbox"] for row in rows[1:])

    told = stack.call("explain", rows[1]["response"]["request_id"])
    assert (told.code, told.report["outcome"]) == (0, "answered")
    proved = call("replay", "decide", "--log", log)
    assert (proved.code, proved.report["decisions"], proved.report["reproduced"]) == (0, LINES, LINES)

    again = stack.call("submit", file, "--run", "e2e", "--detach")
    assert (again.report["run"], again.report["new"]) == ("e2e", 0)
    status = stack.call("run-status", "e2e")
    assert (status.report["done"], status.report["accepted"], status.report["pending"]) == (True, LINES, 0)


def test_answers_are_rated_by_their_output_lines(stack: Stack) -> None:
    """The ids of results name requests; the ratings lie beside them in the topic."""
    rows = [json.loads(row) for row in (stack.folder / "out.jsonl").read_bytes().splitlines()]
    named = [row["id"] for row in rows if row["response"]]
    ratings = stack.folder / "ratings.jsonl"
    lines = [json.dumps({"request_id": name, "reward": 1}) for name in [*named, "f" * 32]]
    ratings.write_text("\n".join(lines) + "\n")
    told = stack.call("feedback", str(ratings))
    log = stack.folder / "rated"
    stack.call("submit", str(stack.folder / "in.jsonl"), "--run", "e2e", "--detach", "--keep-log", str(log))
    found = {(e.key, e.partition): CODEC.decode(e.value) for e in LogDir(log).read("feedback")}

    assert (told.code, told.report["written"]) == (1, len(named))
    assert [line["code"] for line in told.report["refused"]] == ["request_not_found"]
    assert {f"batch_req_{record.request_id.hex()}" for record in found.values()} == set(named)
    assert all(record.origin.partition == partition for (_, partition), record in found.items())


def test_the_log_in_memory_gives_the_same_decisions(stack: Stack) -> None:
    """The same file under the same run's name: the same ids, and for equal signals equal decisions."""
    file, out, log = (str(stack.folder / name) for name in ("in.jsonl", "memory.jsonl", "memory"))
    triton = ("--triton", stack.up["triton"])
    done = call(
        "run", file, "--out", out, "--keep-log", log, "--run", "e2e", "--policy", str(DEFAULT_POLICY), *triton
    )
    assert done.code == 1, done.said
    kafka, memory = decisions(stack.folder / "log"), decisions(stack.folder / "memory")
    assert kafka.keys() == memory.keys()
    assert {i: d.chosen for i, d in kafka.items()} == {i: d.chosen for i, d in memory.items()}
    assert {i: d.propensities for i, d in kafka.items()} == {i: d.propensities for i, d in memory.items()}
    for request_id, core in kafka.items():
        other = memory[request_id].rule
        assert (core.rule.leaf, core.rule.state) == (other.leaf, other.state)
        # The encoder's last bits depend on which texts share a batch.
        assert core.rule.confidence == pytest.approx(other.confidence, abs=1e-5)


def decisions(log: Path) -> dict[bytes, Any]:
    """Return the core of each request's decision."""
    found = [CODEC.decode(envelope.value) for envelope in LogDir(log).read("decisions")]
    return {decision.request_id: decision.core for decision in found}


def test_plain_json_in_the_inbox_becomes_a_request(stack: Stack) -> None:
    """A producer of another program needs Kafka and JSON; what is no request keeps its bytes."""
    place = asyncio.run(_produce(stack.up["broker"]))
    log = stack.folder / "inbox"
    cluster, letter, mine = "", None, b""
    requests: list[Any] = []
    deadline = time.monotonic() + 120
    # Of the two, either may come to lie in the log first.
    while letter is None or mine not in {request.request_id for request in requests}:
        assert time.monotonic() < deadline, (letter, requests)
        stack.call("submit", str(stack.folder / "in.jsonl"), "--run", "e2e", "--keep-log", str(log))
        kept = LogDir(log)
        cluster = kept.manifest.cluster_id
        mine = inbox_request_id(cluster, "inbox.json", *place)
        letters = [CODEC.decode(envelope.value) for envelope in kept.read("dead-letters")]
        letter = next((x for x in letters if x.topic == "inbox.json"), None)
        requests = [CODEC.decode(envelope.value) for envelope in kept.read("requests")]
    assert letter is not None
    assert (letter.value, letter.key, letter.stage) == (b"\xff no json", b"k", "admission.json")
    (request,) = [x for x in requests if x.source == "inbox"]
    assert (request.request_id, request.policy_hash) == (mine, requests[0].policy_hash)


async def _produce(broker: str) -> tuple[int, int]:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    try:
        topic, body = "signalbox.inbox.json.v1", {"messages": [{"role": "user", "content": "hello"}]}
        placed = await producer.send_and_wait(topic, json.dumps(body).encode(), partition=1)
        await producer.send_and_wait(topic, b"\xff no json", key=b"k", partition=1)
    finally:
        await producer.stop()
    return placed.partition, placed.offset


def test_a_killed_worker_is_started_again(stack: Stack) -> None:
    """SIGKILL: the supervisor starts the role anew, and a new run comes back whole."""
    victim = next(w["pid"] for w in stack.up["workers"] if w["role"] == "decision")
    os.kill(victim, signal.SIGKILL)
    file, out = str(stack.folder / "in.jsonl"), str(stack.folder / "after.jsonl")
    done = stack.call("submit", file, "--wait", "--out", out, "--new-run")
    assert (done.code, done.report["new"], done.report["lines"]) == (1, LINES, LINES + 1), done.said
    workers = stack.call("status").report["workers"]
    decision = next(w for w in workers if w["name"].startswith("decision"))
    assert decision["pid"] != victim
    assert decision["restarts"] == 1


def test_down_stops_what_up_started(stack: Stack) -> None:
    """Every process of the stack is gone, and a second `down` has nothing to do."""
    pids = [w["pid"] for w in stack.call("status").report["workers"]]
    down = stack.call("down")
    assert down.code == 0
    assert set(pids) | {stack.up["supervisor_pid"]} <= set(down.report["stopped"])
    assert not any(alive(pid) for pid in [*pids, stack.up["supervisor_pid"]])
    assert stack.call("down").report == {"stopped": []}
    assert stack.call("submit", str(stack.folder / "in.jsonl")).code == 3
