"""Break a running Signalbox for as many rounds as asked, and judge what became of the requests: `make kill`.

A round is one SIGKILL of one worker, aimed at a cell of role x phase; other disturbances go on beside
(`tests.live.kill_schedule`). Leaves in OUT what the checker reads (`tests.live.checker`), a report, and
the stack's own files in OUT/stack. The seed decides which disturbances happen in which round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from agents.errors import RouterError
from infra.local.errors import StackError
from schemas.logdir import LogDirError
from tests.live.checker import judge, report
from tests.live.checker_evidence import read
from tests.live.kill_report import markdown
from tests.live.kill_run import Options, run
from tests.live.kill_sabotage import SABOTAGES

LONG_ROUNDS, LONG_OUTAGE_S, SHORT_OUTAGE_S = 100, 120.0, 10.0
_USAGE, _DOWN = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and judge; exit code 0: nothing wrong, 1: lost or doubled, 2: bad input, 3: it could not run."""
    given = _parser().parse_args(arguments)
    if given.out.exists() and any(given.out.iterdir()):
        _say(f"{given.out} is not empty: give another OUT, or remove it")
        return _USAGE
    given.out.mkdir(parents=True, exist_ok=True)
    outage = given.outage or (LONG_OUTAGE_S if given.rounds >= LONG_ROUNDS else SHORT_OUTAGE_S)
    options = Options(given.out, given.rounds, given.seed, given.sabotage, outage, given.faults)
    _say(f"seed {given.seed}")
    before = os.getloadavg()
    try:
        told = asyncio.run(_runner(given.broker)(options))
        verdict = judge(read(given.out))
    except (StackError, RouterError, LogDirError, KafkaError, TimeoutError) as error:
        _say(f"the run could not be done: {type(error).__name__}: {error}")
        return _DOWN
    told = {**told, "load_before": before, "load_after": os.getloadavg(), "broker": given.broker}
    meta = {
        **told,
        "rounds": given.rounds,
        "seed": given.seed,
        "sabotage": given.sabotage,
        "outage_s": outage,
    }
    (given.out / "run.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    (given.out / "report.md").write_text(markdown(given.out, meta, verdict), encoding="utf-8")
    sys.stdout.write(report(verdict) + f"\nseed={given.seed} took_s={told['took_s']}\n")
    return 0 if verdict.ok else 1


def _runner(broker: str) -> Any:
    if broker == "kafka":
        return run
    from tests.live.kill_memory import run_in_memory  # noqa: PLC0415 - only this one needs the fakes

    return run_in_memory


def _say(text: str) -> None:
    sys.stderr.write(f"kill: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.live.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many kills; some rounds take two")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule, the prompts and the simulator")
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--broker", choices=("kafka", "memory"), default="kafka", help="which log")
    parser.add_argument("--sabotage", choices=("", *SABOTAGES), default="", help="a fault to plant")
    parser.add_argument("--outage", type=float, default=0.0, help="seconds without a broker; 0: by ROUNDS")
    parser.add_argument("--faults", action="store_true", help="let the providers fail some calls")
    return parser


if __name__ == "__main__":
    sys.exit(main())
