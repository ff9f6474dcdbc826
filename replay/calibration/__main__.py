"""The command behind `make calibration`: worlds in parallel, a row each, coverage by cell, an exit code."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import replay.estimators
from replay.calibration.run import SABOTAGES, Coverage, Row, as_row, coverage, evaluated, problems
from replay.calibration.worlds import CELLS, FEW, MOST, Cell, truth
from replay.estimators import estimator

OK, NO, USAGE = 0, 1, 2
_FEW_ONLY = "unrated_counted"
"""The defect that shows where few rewards are observed."""


def _one(sabotage: str, task: tuple[Cell, int]) -> Row:
    return evaluated(*task, SABOTAGES.get(sabotage))


def _rows(cells: Sequence[Cell], worlds: int, seed: int, sabotage: str) -> Iterator[Row]:
    tasks = [(cell, seed + number) for number in range(worlds) for cell in cells]
    for cell in cells:
        truth(cell.epsilon)  # once, before the workers are forked
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        yield from pool.imap(partial(_one, sabotage), tasks, chunksize=8)


def table(cells: Iterable[Coverage]) -> str:
    """Return coverage, width, bias and refusals by cell, as a Markdown table."""
    lines = [
        "| rows | overlap | ratings | worlds | refused | coverage | exact 99.9 % | mean width | bias | |",
        "|---:|---|---|---:|---:|---:|---|---:|---:|---|",
    ]
    for c in cells:
        word = "outside" if c.failed else "ok" if c.judged else "reported only"
        lines.append(
            f"| {c.rows} | {c.overlap} | {c.ratings} | {c.worlds} | {c.refused} | {c.covered:.4f} | "
            f"[{c.low:.4f}, {c.high:.4f}] | {c.width:.4f} | {c.bias:+.4f} | {word} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run as asked; 0 if every judged cell covers, 1 if not, 2 for bad usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=2000, help="worlds in each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sabotage", default="", choices=["", *SABOTAGES])
    parser.add_argument("--ratings", choices=CELLS, help="how many rewards are observed: nine cells, or six")
    asked = parser.parse_args(arguments)
    if asked.worlds < 1:
        parser.error("--worlds must be at least 1")
    estimator.load(replay.estimators)
    chosen = CELLS[asked.ratings or (FEW if asked.sabotage == _FEW_ONLY else MOST)]
    rows = list(_rows(chosen, asked.worlds, asked.seed, asked.sabotage))
    asked.out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([as_row(row) for row in rows]), asked.out / "worlds.parquet")
    cells = [coverage(cell, rows) for cell in chosen]
    wrong = problems(cells)
    found = {
        "sabotage": asked.sabotage,
        "seed": asked.seed,
        "cells": [asdict(c) for c in cells],
        "problems": wrong,
    }
    (asked.out / "coverage.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table(cells) + "\n")
    for line in wrong:
        sys.stdout.write(f"calibration: {line}\n")
    return NO if wrong else OK


if __name__ == "__main__":
    sys.exit(main())
