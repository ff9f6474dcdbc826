"""The example of an evaluation does what the documents say that it does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from infra.evaluation.invented import MEANS
from tests.architecture.repository import ROOT

SHARE_OF_LARGE = {"hard": (1 / 2, 1.0), "rest": (1 / 3, 0.0)}
"""By decision: how often the large model is taken today, and tomorrow."""


def python(*arguments: str) -> bytes:
    """Run a module and return what it prints."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def truth(decisions: Counter[str]) -> float:
    """Return what tomorrow's policy is better by, from what was invented."""

    def worth(decision: str, large: float) -> float:
        return large * MEANS[decision, "north-large"] + (1 - large) * MEANS[decision, "north-small"]

    gains = {name: worth(name, then) - worth(name, now) for name, (now, then) in SHARE_OF_LARGE.items()}
    return sum(count * gains[name] for name, count in decisions.items()) / decisions.total()


@pytest.mark.timeout(300)
def test_the_example_comes_to_a_verdict_that_is_true(tmp_path: Path) -> None:
    """Invented traffic, a run, invented ratings: better, by an interval that holds what was invented."""
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("traffic", "results", "ratings")}
    today, tomorrow = (f"infra/evaluation/{name}.yaml" for name in ("today", "tomorrow"))
    log = str(tmp_path / "log")
    Path(files["traffic"]).write_bytes(python("infra.evaluation.invented", "traffic"))
    to = ("--policy", today, "--out", files["results"], "--keep-log", log)
    python("signalbox", "run", files["traffic"], *to)
    Path(files["ratings"]).write_bytes(python("infra.evaluation.invented", "ratings", files["results"]))
    asked = ("--log", log, "--policy", tomorrow, "--ratings", files["ratings"], "--json")
    found = orjson.loads(python("signalbox", "replay", "evaluate", *asked))

    rows = [orjson.loads(row) for row in Path(files["results"]).read_bytes().splitlines()]
    gain = truth(Counter(row["signalbox"]["decision"] for row in rows))
    difference = found["difference"]["dr"]
    assert found["verdict"] == "better"
    assert difference["low"] < gain < difference["high"]
    assert found["cost"]["verdict"] == "lower"
    assert found["log"]["unmatched_ratings"] == 0
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert found["sentence"] in readme
    assert f"known: {gain:+.4f}." in readme
