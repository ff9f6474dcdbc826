"""Classifiers that are down, slow or answer nonsense, and late signals: the declared branch is taken."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from agents.errors import CallTimeout, Unavailable
from agents.ports import Inference
from agents.testing import request_of
from schemas.identity import Origin
from schemas.signal import Observation, Observations, SignalSet
from schemas.topics import DECISIONS, RESULTS, signals_topic
from tests.streams.plays import Play

YAML = """
providers:
  defaults: {default_model: small}
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: north}]}
routing:
  signals:
    embeddings:
      - {name: maths, threshold: 0.9, candidates: [solve this equation]}
  decisions:
    - name: maths
      rules: {operator: AND, conditions: [{type: embedding, name: maths, on_unknown: UNKNOWN}]}
      modelRefs: [{model: large}]
deadlines: {request_s: 20, infer_s: 2}
"""
CASES = [
    ("down", "no_match", "small", 200),
    ("down", "match", "large", 200),
    ("down", "fail_request", "", 0),
    ("slow", "match", "large", 200),
    ("nan", "no_match", "small", 200),
]


class Broken:
    """An `Infer` port in one of the ways in which a classifier fails."""

    def __init__(self, how: str) -> None:
        self._how = how

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Fail."""
        if self._how == "down":
            raise Unavailable(f"{classifier} refuses connections")
        if self._how == "slow":
            raise CallTimeout(f"{classifier} did not answer within {timeout_s:g} s")
        return Inference(np.full((len(texts), 16), math.nan, np.float32), "1")


@pytest.mark.parametrize(
    ("how", "on_unknown", "model", "status"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
async def test_scar_16_a_broken_classifier_takes_the_declared_branch(
    how: str, on_unknown: str, model: str, status: int
) -> None:
    """Its signal is recorded as failed with a reason, and the rule says what that means; nothing is lost."""
    async with Play(YAML.replace("UNKNOWN", on_unknown)) as play:
        play.classifier = Broken(how)  # type: ignore[assignment]
        await play.publish()
        await play.worker("w1")
        for n in range(6):
            play.ask(request_of(play.policy, f"r{n}", f"two and {n}", now=play.clock.now), n % 2)
        await play.until(lambda: play.total([RESULTS]) == 6, "every result")
        await play.quiet()
        signals = play.records(signals_topic("embedding"))
        decisions = play.records(DECISIONS)

        assert [(s.observations.status, bool(s.observations.reason[0])) for s in signals] == [
            (("failed",), True)
        ] * 6
        assert {d.core.chosen for d in decisions} == {model}
        assert len(decisions) == 6
        results = play.records(RESULTS)
        assert all(r.status == status if status else r.status >= 400 for r in results)
        assert play.records("dead-letters") == []


def late(play: Play, offset: int, name: str) -> SignalSet:
    """Return a signal of request *name* that would have changed its decision."""
    request = request_of(play.policy, name, f"two and {name}", now=play.clock.now)
    matched = Observations.of(
        [
            Observation(
                "embedding", "maths", "maths", matched=True, confidence=1.0, value=1.0, status="ok", reason=""
            )
        ]
    )
    return SignalSet(
        request.request_id, Origin(0, offset), "embedding", play.policy.hash, "default", matched,
        play.clock.now, 1, ("minilm",), ("1",),
    )  # fmt: skip


async def test_scar_17_signals_after_the_deadline_are_counted_and_change_nothing() -> None:
    """The decision is made once, at the deadline; a signal behind it is acknowledged and does not move it."""
    async with Play(YAML.replace("UNKNOWN", "no_match"), partitions=1) as play:
        await play.publish()
        worker = await play.worker("w1", ["decision", "dispatch", "provider.north"])
        runner = worker.fleet.hosts[0].runner
        names = [f"r{n}" for n in range(3)]
        for name in names:
            play.ask(request_of(play.policy, name, f"two and {name}", now=play.clock.now))
        await play.quiet()
        assert play.total([DECISIONS]) == 0
        play.clock.advance(12_000)  # half the time to the deadline, and the grace
        await play.until(lambda: play.total([RESULTS]) == 3, "decisions without the signal")
        before = [d.core for d in play.records(DECISIONS)]
        for offset, name in enumerate(names):
            signal = late(play, offset, name)
            play.log.append((signals_topic("embedding"), 0), signal.request_id, play.codec.encode(signal))
        await play.until(lambda: runner.progress().details["late"] == 3, "the count of late signals")
        await play.quiet(80)  # beyond a commit
        commits = play.log.consumer("signalbox.decision", [], "x")._group.commits

        assert [d.core for d in play.records(DECISIONS)] == before
        assert {d.core.chosen for d in play.records(DECISIONS)} == {"small"}
        assert play.total([RESULTS]) == 3
        assert commits[signals_topic("embedding"), 0].offset == 3
