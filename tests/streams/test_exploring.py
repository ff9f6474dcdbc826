"""Exploring under both drivers, and a budget that outlives the process that spends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.dispatch import TAKEN_BACK
from agents.exploration import DAY_MS, OPEN, SPENT
from agents.testing import request_of
from schemas.decision import Decision, DecisionMeta
from tests.streams.plays import Play
from tests.streams.scenes import Scene
from tests.streams.test_parity import YAML as PARITY_YAML
from tests.streams.test_parity import ask, publish, same

YAML = """
providers:
  models:
    - {name: small, pricing: {prompt_per_1m: 1.0}, backend_refs: [{name: north}]}
    - {name: large, pricing: {prompt_per_1m: 11.0}, backend_refs: [{name: north}]}
routing:
  signals:
    keywords: [{name: code, operator: OR, keywords: [python]}]
  decisions:
    - {name: code, rules: {type: keyword, name: code}, modelRefs: [{model: small}, {model: large}]}
exploration:
  max_extra_usd_per_day: 0.1
  decisions: {code: {epsilon: 0.5, candidates: [large]}}
deadlines: {request_s: 20, call_s: 2, attempts: 2}
"""
EXTRA = 0.01
"""What `large` costs more for the expected thousand tokens: ten trials a day can be paid."""
EXPLORING = (
    PARITY_YAML
    + """
exploration:
  max_extra_usd_per_day: 1.0
  decisions:
    maths: {epsilon: 0.5, candidates: [large, tiny]}
    code: {epsilon: 0.5, candidates: [large, tiny]}
"""
)


async def test_both_drivers_explore_alike() -> None:
    """The same choices with the same propensities and balances, byte for byte."""
    scene = Scene(EXPLORING, [publish, ask(*range(24))])
    fold, _ = await scene.on_fold()
    assert any(
        b"explor" in value for (topic, _), bag in fold.items() if topic == "decisions" for _, value in bag
    )

    await same(scene)


async def decided(play: Play, first: int, count: int) -> list[Decision]:
    """Ask for *count* requests and return their decisions, in the order of the log."""
    for n in range(first, first + count):
        play.ask(request_of(play.policy, f"r{n}", "python", now=play.clock.now))
    await play.until(lambda: play.total(["decisions"]) >= first + count, "decisions")
    await play.quiet()
    return [d for d in play.records("decisions") if d.origin.offset >= first]


def tried(decisions: list[Decision]) -> int:
    """Return how many of *decisions* went to the dearer model."""
    return sum(d.core.chosen == "large" for d in decisions)


@pytest.mark.parametrize("rounds", [60, 1])
async def test_a_worker_that_dies_leaves_its_balance_to_the_next(rounds: int) -> None:
    """Killed before or after its commits, amid the day's budget: the cap of the day holds across both."""
    async with Play(YAML, partitions=1) as play:
        await play.others("decision")
        first = await play.worker("d1", ["decision"])
        begun = await decided(play, 0, 8)
        assert 0 < tried(begun) < 10
        await play.quiet(rounds)  # commits go out every half second
        await first.kill()
        await play.worker("d2", ["decision"])
        more = await decided(play, 8, 60)
        seen = {d.request_id: d for d in reversed([*begun, *more])}.values()

        assert sum(d.core.chosen == "large" for d in seen) == 10
        assert {d.core.facts.get("exploration") for d in more} == {OPEN, SPENT}
        assert more[-1].meta.explored_usd == pytest.approx(10 * EXTRA)

        play.clock.advance(DAY_MS)
        tomorrow = await decided(play, 68, 6)
        assert tomorrow[0].core.facts.get("exploration") == OPEN
        assert tomorrow[-1].meta.explored_usd == pytest.approx(tried(tomorrow) * EXTRA)


async def test_a_decision_that_dispatch_took_back_hides_no_balance() -> None:
    """It lies last in the partition and says nothing of what was spent: two restarts later the cap holds."""
    async with Play(YAML, partitions=1) as play:
        await play.others("decision")
        worker = await play.worker("d0", ["decision"])
        begun = await decided(play, 0, 60)
        assert tried(begun) == 10
        core = replace(begun[-1].core, outcome="failed", failure=TAKEN_BACK, chosen="", plan=())
        taken = replace(begun[-1], core=core, meta=DecisionMeta((), play.clock.now, 0, ()))
        play.log.append(("decisions", 0), taken.request_id, play.codec.encode(taken))
        for life in range(2):
            play.log.append(("requests", 0), b"", b"nobody can read this, but it moves the commit")
            await play.quiet(60)  # commits go out every half second
            await worker.stop()
            worker = await play.worker(f"d{life + 1}", ["decision"])
        await play.quiet(60)
        for n in range(60, 70):
            play.ask(request_of(play.policy, f"r{n}", "python", now=play.clock.now))
        await play.until(lambda: play.total(["decisions"]) >= 71, "decisions")
        more = play.records("decisions")[61:]
        own = [d for d in more if d.core.failure != TAKEN_BACK]

        assert {d.core.facts.get("exploration") for d in own} == {SPENT}
        assert tried(own) == 0
