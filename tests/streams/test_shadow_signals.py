"""Shadow signals through the whole topology: archived as others, used by a policy that needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents.testing import request_of
from signalbox import app
from streams.app import roles_for
from tests.streams.plays import Play
from tests.streams.scenes import Scene
from tests.streams.test_parity import YAML as PARITY_YAML
from tests.streams.test_parity import ask, publish, same

POLICY = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: north}]}
    - {name: coder, backend_refs: [{name: north}]}
routing:
  signals:
    keywords: [{name: code, operator: OR, keywords: [Python]}]
    context: [{name: short, min_tokens: "0", max_tokens: 8K}]
    embeddings: [{name: law, threshold: 0.5, candidates: [contract law]}]
  decisions:
    - {name: code, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: coder}]}
"""
NEXT = POLICY.replace("type: keyword, name: code", "type: context, name: short")
PROFILE = "providers: {north: {models: {small: {length: {median: 4}}, coder: {length: {median: 4}}}}}"
COUNT = 200


async def test_both_drivers_observe_in_shadow_alike() -> None:
    """A role that nothing else demands included, late and duplicated requests as well."""
    shadows = "shadow_signals: {'embedding:maths': 0.5}\n"
    yaml = (
        PARITY_YAML.replace("rules: {type: embedding, name: maths}", "rules: {type: keyword, name: urgent}")
        + shadows
    )
    scene = Scene(yaml, [publish, ask(*range(24)), 1000, ask(3, 4)])
    fold, _ = await scene.on_fold()
    beside = sum(sum(bag.values()) for (topic, _), bag in fold.items() if topic == "signals.embedding")

    assert 0 < beside < 26
    await same(scene)


async def test_nothing_waits_for_a_signal_that_nobody_demands() -> None:
    """With its role not running at all every request is decided at once, and nothing counts as late."""
    async with Play(POLICY + "shadow_signals: {'embedding:law': 1.0}\n", partitions=1) as play:
        await play.publish()
        roles = [role for role in roles_for(play.policy) if role != "signals.embedding"]
        assert "signals.embedding" in roles_for(play.policy)
        worker = await play.worker("w1", roles)
        for n in range(5):
            play.ask(request_of(play.policy, f"r{n}", "Python", now=play.clock.now))
        await play.until(lambda: play.total(["results"]) == 5, "results")
        assert [d.core.decision for d in play.records("decisions")] == ["code"] * 5

        await play.worker("w2", ["signals.embedding"])
        await play.until(lambda: play.total(["signals.embedding"]) == 5, "the shadow signals")
        await play.quiet()
        late = [s.value for m in worker.world.telemetry.late.collect() for s in m.samples]
        assert sum(late) == 0
        assert play.total(["dead-letters"]) == 0


def invoke(*arguments: str) -> Any:
    """Run a command and return its JSON."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code in {0, 4}, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_the_unknown_share_falls_with_the_rate(tmp_path: Path, rate: float) -> None:
    """What was observed in shadow is known to another policy, from the kept log and from its archive."""
    (tmp_path / "now.yaml").write_text(POLICY + f"shadow_signals: {{'context:short': {rate}}}\n")
    (tmp_path / "next.yaml").write_text(NEXT)
    (tmp_path / "profile.yaml").write_text(PROFILE)
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"messages": [{"role": "user", "content": f"{('Python', 'hello')[n % 2]} {n}"}]}}
        for n in range(COUNT)
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    options = {"--out": "out", "--policy": "now.yaml", "--profile": "profile.yaml", "--keep-log": "log"}
    arguments = [word for key, name in options.items() for word in (key, str(tmp_path / name))]
    assert CliRunner().invoke(app, ["run", str(tmp_path / "in.jsonl"), *arguments]).exit_code == 0
    log, archived, new = (str(tmp_path / name) for name in ("log", "archive", "next.yaml"))
    invoke("replay", "archive", "--log", log, "--out", archived)
    again = invoke("replay", "decide", "--log", log)
    found = invoke("replay", "decide", "--log", log, "--policy", new)

    assert (again["decisions"], again["reproduced"]) == (COUNT, COUNT)
    assert abs(found["unknown_share"] - (1 - rate)) <= 5 * (rate * (1 - rate) / COUNT) ** 0.5
    assert invoke("replay", "decide", "--log", archived, "--policy", new) == found
