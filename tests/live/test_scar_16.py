"""A real Triton that is killed, slow or answers NaN: each decision takes the branch that its rule says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.testing import request_of
from infra.local.triton import Triton, TritonOptions
from schemas.topics import DECISIONS, RESULTS, signals_topic
from streams.clients.retrying import RetryingInfer
from streams.clients.triton import TritonInfer
from tests.streams.plays import Play

pytestmark = [pytest.mark.live, pytest.mark.timeout(600), pytest.mark.usefixtures("triton_environment")]

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: medium, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: north}]}
routing:
  signals:
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: maths
      priority: 2
      rules: {operator: AND, conditions: [{type: embedding, name: maths, on_unknown: UNKNOWN}]}
      modelRefs: [{model: large}]
    - name: rest
      priority: 1
      rules: {operator: NOT, conditions: [{type: embedding, name: maths, on_unknown: UNKNOWN}]}
      modelRefs: [{model: medium}]
deadlines: {request_s: 60, infer_s: 2}
"""
CONFIG = """
backend: "python"
max_batch_size: 32
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "sentence_embedding" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
# Texts about sums lie along the candidate, others across it; the file says how it misbehaves.
MODEL = """
import pathlib
import time
import numpy as np
import triton_python_backend_utils as backend

MOOD = pathlib.Path("@MOOD@")


class TritonPythonModel:
    def execute(self, requests):
        mood = MOOD.read_text()
        if mood == "slow":
            time.sleep(3)
        answers = []
        for request in requests:
            texts = backend.get_input_tensor_by_name(request, "text").as_numpy().ravel()
            rows = np.array([[b"equation" in t, b"equation" not in t, 0, 0] for t in texts], np.float32)
            if mood == "nan":
                rows[:] = np.nan
            answers.append(backend.InferenceResponse([backend.Tensor("sentence_embedding", rows)]))
        return answers
"""


@asynccontextmanager
async def classifier(folder: Path) -> AsyncIterator[tuple[Triton, str, Path]]:
    """Run Triton over an encoder whose mood is in a file: `well`, `slow` or `nan`."""
    mood = folder / "mood"
    mood.write_text("well")
    version = folder / "repository" / "encoder" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (version / "model.py").write_text(MODEL.replace("@MOOD@", str(mood)), encoding="utf-8")
    triton = Triton(
        TritonOptions(folder=folder / "triton", repository=folder / "repository", models=("encoder",))
    )
    try:
        yield triton, await triton.start(), mood
    finally:
        await triton.stop()


async def models_of(play: Play, names: list[str]) -> list[str]:
    """Ask for *names*, of which each even one is about an equation; return the models chosen, in order."""
    for n, name in enumerate(names):
        text = "solve an equation" if n % 2 == 0 else "tell a story"
        play.ask(request_of(play.policy, name, text, now=play.clock.now))
    before = play.total([RESULTS])
    await play.until(lambda: play.total([RESULTS]) == before + len(names), "every result")
    await play.quiet()
    return [decision.core.chosen for decision in play.records(DECISIONS)[-len(names) :]]


@pytest.mark.parametrize(
    ("unknown", "branch"), [("no_match", "medium"), ("match", "large"), ("fail_request", "")]
)
async def test_scar_16_a_triton_that_fails_takes_the_declared_branch(
    unknown: str, branch: str, tmp_path: Path
) -> None:
    """Well, slow, NaN, killed, well again: only the failures take the branch, and nothing is lost."""
    async with (
        classifier(tmp_path) as (triton, address, mood),
        TritonInfer(address) as infer,
        Play(YAML.replace("UNKNOWN", unknown), partitions=1) as play,
    ):
        play.classifier = RetryingInfer(infer)  # type: ignore[assignment]
        await play.publish()
        await play.worker("w1")
        chosen = {"well": await models_of(play, ["a1", "a2"])}
        for state in ("slow", "nan"):
            mood.write_text(state)
            chosen[state] = await models_of(play, [f"{state}1", f"{state}2"])
        mood.write_text("well")
        await triton.kill()
        chosen["killed"] = await models_of(play, ["k1", "k2"])
        await triton.start()
        chosen["again"] = await models_of(play, ["b1", "b2"])
        observed = [record.observations for record in play.records(signals_topic("embedding"))]

        assert chosen["well"] == chosen["again"] == ["large", "medium"]
        assert [chosen[state] for state in ("slow", "nan", "killed")] == [[branch, branch]] * 3
        assert [o.status for o in observed] == [("ok",)] * 2 + [("failed",)] * 6 + [("ok",)] * 2
        assert all(o.reason[0] for o in observed[2:8])
        assert play.records("dead-letters") == []
