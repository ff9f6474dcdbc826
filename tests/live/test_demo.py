"""`signalbox demo` as its user runs it: a process, real Kafka, simulated providers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.identity import Identity
from tests.architecture.repository import ROOT

pytestmark = [pytest.mark.live, pytest.mark.timeout(600), pytest.mark.usefixtures("kafka_jars")]

LINES = 40
POLICY = ROOT / "infra/policies/quickstart.yaml"


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """The first of the bundled requests, with a line between them that is none."""
    lines = (ROOT / "infra/demo/requests.jsonl").read_bytes().splitlines(keepends=True)[: LINES - 1]
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"".join([*lines[:5], b"no json\n", *lines[5:]]))
    return file


def demo(folder: Path, requests: Path) -> list[str]:
    """Return the command."""
    options = ["--dir", str(folder), "--file", str(requests), "--policy", str(POLICY), "--json"]
    return [sys.executable, "-m", "signalbox", "demo", *options]


def test_the_demo_routes_every_line_and_proves_every_decision(tmp_path: Path, requests: Path) -> None:
    """It exits 0 with a result for each line, everything reproduced, and nothing left running."""
    folder = tmp_path / "demo"
    done = subprocess.run(
        demo(folder, requests), cwd=ROOT, capture_output=True, text=True, timeout=560, check=False
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(rows) == report["lines"] == LINES
    assert [row["line"] for row in rows if row["error"]] == [6]
    assert report["reproduced"] == report["decisions"] == LINES - 1
    assert json.loads((folder / "report.json").read_text()) == report
    assert not any(map(runs, pids_in(done.stderr)))


def test_a_demo_that_is_told_to_stop_leaves_nothing_running(tmp_path: Path, requests: Path) -> None:
    """SIGTERM while the workers start: every process is gone when the demo is."""
    with subprocess.Popen(
        demo(tmp_path / "demo", requests),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stderr is not None
        said = ""
        while "worker dispatch/0 started" not in said:
            line = running.stderr.readline()
            assert line, said
            said += line
        assert any(map(runs, pids_in(said)))
        running.send_signal(signal.SIGTERM)
        said += running.stderr.read()
        code = running.wait()

    assert code == 130
    assert "everything that was started has been stopped" in said
    assert not any(map(runs, pids_in(said)))


def pids_in(text: str) -> list[int]:
    """Return the pids of the workers that *text* tells of."""
    return [int(pid) for pid in re.findall(r"started \(pid (\d+)\)", text)]


def runs(pid: int) -> bool:
    """Tell whether process *pid* exists."""
    return Identity.of(pid) is not None
