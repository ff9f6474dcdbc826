"""Coverage on logs drawn from real outcomes, as `make outcomes` writes it.

``python -m tests.replay.outcome_report FOLDER DRAWS REPORT`` runs ``bench outcomes`` on every table in FOLDER
and writes numbers alone to the Markdown file REPORT. Exits 1 if any coverage cannot lie in 93 to 97 %.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

HEAD = """# Intervals on logs drawn from real outcomes

`make outcomes DATA=DIR DRAWS=1000` draws bandit logs from tables of every model's score on every question,
where the true value of any policy is known, and estimates the paired difference between a router and the
logging policy from each with the default method. The router takes the model with the best score predicted
from kind and length of the question; the logging policy is the second best single model, but for a share
*epsilon* that is spread evenly over at most five models (best to worst by rank). Rows are drawn with
replacement, so the table is the population. Cost is in tokens of the answers; for elliesql in invented
units by tier. Refused are logs with too little to go by, as always. best single and oracle are chosen with
hindsight on the same questions.

## What the tables hold
"""


def told(folder: Path, draws: str) -> dict[str, Any]:
    """Return what the command prints of every table in *folder*."""
    found = {}
    for table in sorted(folder.glob("*.parquet")):
        command = [sys.executable, "-m", "signalbox", "bench", "outcomes", str(table)]
        done = subprocess.run([*command, "--draws", draws, "--json"], capture_output=True, check=False)
        if done.returncode not in {0, 1}:
            raise SystemExit(done.stderr.decode())
        found[table.stem] = orjson.loads(done.stdout)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Return the two tables as Markdown."""
    out = ["| table | questions | best single | random | oracle | router | cost of best single, router |"]
    out.append("|---|---:|---:|---:|---:|---:|---|")
    for name, each in found.items():
        value = " | ".join(f"{each['value'][p]:.4f}" for p in ("best_single", "random", "oracle", "router"))
        costs = [each["cost"]["best_single"], each["cost"]["router"]]
        cost = "unknown" if None in costs else f"{costs[0]:.1f}, {costs[1]:.1f}"
        out.append(f"| {name} | {each['questions']:,} | {value} | {cost} |")
    out += ["", "## Coverage of the 95 % interval of the paired difference", ""]
    out.append("| table | epsilon | rows | logs | refused | coverage | exact 99.9 % | mean width | bias | |")
    out.append("|---|---:|---:|---:|---:|---:|---|---:|---:|---|")
    for name, each in found.items():
        out += [_line(name, cell) for cell in each["coverage"]]
    return out


def _line(name: str, c: dict[str, Any]) -> str:
    word = "outside" if c["failed"] else "ok" if c["judged"] else "reported only"
    head = f"| {name} | {c['overlap'].split()[1]} | {c['rows']} | {c['worlds']} | {c['refused']} "
    if c["covered"] is None:
        return head + f"| | | | | {word} |"
    exact = f"[{c['low']:.4f}, {c['high']:.4f}]"
    return head + f"| {c['covered']:.4f} | {exact} | {c['width']:.4f} | {c['bias']:+.4f} | {word} |"


def main(folder: str, draws: str, report: str) -> int:
    """Write the report; 1 if a coverage failed."""
    found = told(Path(folder), draws)
    load = f"{os.getloadavg()[0]:.0f}"
    text = HEAD + "\n" + "\n".join([*lines(found), "", f"Load average at the end: {load}."]) + "\n"
    Path(report).write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(any(cell["failed"] for each in found.values() for cell in each["coverage"]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
