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
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("kafka_jars", "triton_environment"),
]


_UNABLE = 3
"""The run could not be made: its own broker did not come up, say. That tells nothing of the product."""
_RUNS = 3
"""A fault shows only where a kill meets it; not all of so many runs, each with its own seed, may miss it."""


def kill(*arguments: str) -> int:
    """Run the command of `make kill`, in a process of its own as there; return its exit code."""
    return subprocess.run([sys.executable, "-m", "tests.live.kill", *arguments], check=False).returncode


def test_scar_01_no_kill_of_any_role_loses_or_doubles_a_request(tmp_path: Path) -> None:
    """Twenty kills at aimed moments, beside outages, with 200 requests in flight: each is answered once."""
    for seed in ("7", "8"):
        out = tmp_path / f"run-{seed}"
        code = kill("--rounds", "20", "--seed", seed, "--out", str(out))
        if code != _UNABLE:
            break
    verdict = judge(read(out))
    assert (code, verdict.ok) == (0, True), report(verdict)
    run = json.loads((out / "run.json").read_text())
    assert run["least_in_flight"] >= 200
    rows = [json.loads(line) for line in (out / "disturbances.jsonl").read_text().splitlines()]
    assert set(ONCE) <= {row["kind"] for row in rows if row["ended"]}
    assert verdict.totals["kills"] >= 20
    assert verdict.totals["poisons"] > 0


@pytest.mark.parametrize("name", SABOTAGES)
def test_each_planted_fault_is_seen(name: str, tmp_path: Path) -> None:
    """Five rounds over workers with one fault end with exit code 1, and the checker calls it by its name."""
    told: list[str] = []
    for seed in range(3, 3 + _RUNS):
        out = tmp_path / f"run-{seed}"
        code = kill("--rounds", "5", "--seed", str(seed), "--out", str(out), "--sabotage", name)
        if code == _UNABLE:
            told.append(f"seed {seed}: the run could not be made")
            continue
        verdict = judge(read(out))
        found = {kind for kind, what in verdict.defects.items() if what}
        if code == 1 and found & SABOTAGES[name].finds:
            return
        told.append(f"seed {seed}: exit code {code}, found {sorted(found)}")
    pytest.fail("\n".join(told))
