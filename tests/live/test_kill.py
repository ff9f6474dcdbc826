"""Twenty rounds of kills with everything that goes wrong beside them, and each planted fault in five.

`make kill ROUNDS=200` is the long form; docs/results/kill.md has its numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.checker import judge, report
from tests.live.checker_evidence import read
from tests.live.kill_sabotage import SABOTAGES
from tests.live.kill_schedule import ONCE

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("kafka_jars", "triton_environment"),
]


def kill(*arguments: str) -> int:
    """Run the command of `make kill`, in a process of its own as there; return its exit code."""
    return subprocess.run([sys.executable, "-m", "tests.live.kill", *arguments], check=False).returncode


@pytest.mark.breaking
def test_scar_01_no_kill_of_any_role_loses_or_doubles_a_request(tmp_path: Path) -> None:
    """Twenty kills at aimed moments, beside outages, with 200 requests in flight: each is answered once."""
    code = kill("--rounds", "20", "--seed", "7", "--out", str(tmp_path / "run"))
    verdict = judge(read(tmp_path / "run"))
    assert (code, verdict.ok) == (0, True), report(verdict)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["least_in_flight"] >= 200
    rows = [json.loads(line) for line in (tmp_path / "run" / "disturbances.jsonl").read_text().splitlines()]
    assert set(ONCE) <= {row["kind"] for row in rows if row["ended"]}
    assert verdict.totals["kills"] >= 20
    assert verdict.totals["poisons"] > 0


# These lose or double many requests within seconds; the rest takes its time, see `make breaking`.
QUICK = {"commit_early", "faust_consumer"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.breaking) for name in SABOTAGES]
)
def test_each_planted_fault_is_seen(name: str, tmp_path: Path) -> None:
    """Five rounds over workers with one fault end with exit code 1, and the checker calls it by its name."""
    out = tmp_path / "run"
    code = kill("--rounds", "5", "--seed", "3", "--out", str(out), "--sabotage", name)
    verdict = judge(read(out))
    found = {kind for kind, what in verdict.defects.items() if what}
    assert code == 1
    assert found & SABOTAGES[name].finds, report(verdict)
