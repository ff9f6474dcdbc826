"""Invented traffic and ratings for the example: nobody asked, nobody rated, and so the truth is known."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import typer

BUNDLED = Path(__file__).resolve().parents[1] / "demo" / "requests.jsonl"
NAMELESS = ("", "auto")
COPIES, USERS, RATED = 4, 150, 0.6
MEANS: Mapping[tuple[str, str], float] = {
    ("hard", "north-large"): 0.80,
    ("hard", "north-small"): 0.30,
    ("rest", "north-large"): 0.73,
    ("rest", "north-small"): 0.72,
}
"""What an answer is worth on average, by decision and model."""

SPREAD = 4.0
"""How close ratings are to their mean: the sum of the two shapes of a Beta distribution."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Invented traffic and ratings.")


@app.command()
def traffic(copies: int = COPIES) -> None:
    """Print the bundled requests that name no model, several copies of each, as asked by 150 users."""
    rows = [orjson.loads(line) for line in BUNDLED.read_bytes().splitlines()]
    for copy in range(copies):
        for row in rows:
            if row["body"].get("model", "") not in NAMELESS:
                continue
            name = f"{row['custom_id']}-{copy}"
            headers = {**row.get("headers", {}), "x-authz-user-id": f"user-{_drawn(name) % USERS}"}
            _print({**row, "custom_id": name, "headers": headers})


@app.command()
def ratings(results: Path) -> None:
    """Print ratings of the answers in a file of results: of six in ten, drawn by chance."""
    for row in rated(results):
        _print(row)


def rated(results: Path) -> Iterator[dict[str, Any]]:
    """Yield what `ratings` prints."""
    for line in results.read_bytes().splitlines():
        row = orjson.loads(line)
        if row["error"] is not None:
            continue
        draw = random.Random(_drawn(row["id"]))
        if draw.random() >= RATED:
            continue
        mean = MEANS[row["signalbox"]["decision"], row["signalbox"]["model"]]
        reward = draw.betavariate(SPREAD * mean, SPREAD * (1 - mean))  # within 0 and 1, of exactly that mean
        yield {"request_id": row["id"], "reward": reward, "source": "invented", "observation": RATED}


def _print(row: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(row) + b"\n")


def _drawn(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


if __name__ == "__main__":
    app()
