"""The scenarios of the paper, as shipped: one topology, and only the configuration decides otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from agents.admission import Admission, read_line
from schemas.decision import Decision, DecisionCore
from schemas.identity import partition_for
from schemas.topics import DECISIONS, REQUESTS
from signalbox import app
from streams.app import roles_for, topic_counts
from tests.streams.scenes import FoldSide, Scene

POLICIES = Path(__file__).parents[2] / "infra" / "policies"
SCENARIOS = ("privacy", "cost", "latency", "multi-provider")
SHIPPED = (*SCENARIOS, "demo")
PARTITIONS = 2


@pytest.fixture(autouse=True)
def _texts_unlike_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake encoder find no text like another, so that embeddings decide nothing."""
    seen: dict[str, int] = {}

    def apart(text: str) -> NDArray[np.float32]:
        row = np.zeros(256, np.float32)
        row[seen.setdefault(text, len(seen))] = 1.0
        return row

    monkeypatch.setattr("agents.testing.vector_of", apart)


def yaml_of(name: str) -> str:
    """Return the shipped policy *name*."""
    return (POLICIES / f"{name}.yaml").read_text(encoding="utf-8")


def asked(name: str) -> list[bytes]:
    """Return the lines of the fixture of *name*."""
    return (POLICIES / name / "requests.jsonl").read_bytes().splitlines()


def expected(name: str) -> dict[str, dict[str, str | None]]:
    """Return what each line must get; a model of None is one that is drawn among the candidates."""
    found: dict[str, dict[str, str | None]] = orjson.loads((POLICIES / name / "expected.json").read_bytes())
    return found


async def routed(policy: str, lines: list[bytes]) -> tuple[dict[str, DecisionCore], list[Any]]:
    """Return custom id -> decision of *lines* under the shipped *policy*, and the results."""
    side = FoldSide(Scene(yaml_of(policy), (), partitions=PARTITIONS))
    side.publish()
    admission = Admission(side.policy, "default", side.clock.now, "run")
    names = {}
    for number, raw in enumerate(lines, 1):
        request = admission.batch(read_line(number, raw))
        names[request.request_id] = str(request.custom_id)
        side.put(REQUESTS, request, partition_for(request.request_id, PARTITIONS))
    await side.fold.run()
    decisions: list[Decision] = [side.codec.decode(e.value) for e in side.envelopes(DECISIONS)]
    results = [side.codec.decode(e.value) for e in side.envelopes("results")]
    return {names[d.request_id]: d.core for d in decisions}, results


@pytest.mark.parametrize("name", SHIPPED)
async def test_each_request_gets_its_decision_and_its_model(name: str) -> None:
    """What the fixture says comes out of the whole topology, and each request is answered by that model."""
    cores, results = await routed(name, asked(name))
    got = {
        key: {
            "decision": core.decision or f"({core.outcome})",
            "model": core.chosen if expected(name)[key]["model"] else None,
        }
        for key, core in cores.items()
    }

    assert got == expected(name)
    assert all(core.chosen in core.candidates for core in cores.values())
    assert sorted((r.status, r.model) for r in results) == sorted((200, c.chosen) for c in cores.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_has_no_finding_of_error(name: str) -> None:
    """`policy check` accepts it; what it tells at all is that the original wants cards for models."""
    done = CliRunner().invoke(app, ["policy", "check", str(POLICIES / f"{name}.yaml"), "--json"])
    found = json.loads(done.stdout)["findings"]

    assert done.exit_code == 0
    assert {each["severity"] for each in found} <= {"info", "warning"}
    assert {each["code"] for each in found if name in SCENARIOS} <= {"not-portable"}


def test_every_scenario_decides_by_several_decisions() -> None:
    """A fixture covers each decision of its policy: none is shipped that no request reaches."""
    for name in SCENARIOS:
        policy = FoldSide(Scene(yaml_of(name), ())).policy
        reached = {want["decision"] for want in expected(name).values()} - {"(default)"}

        assert reached == {decision.name for decision in policy.routing.decisions}, name


def test_the_topology_is_the_same() -> None:
    """Roles, topics, models and providers are those of the other scenarios; the policies are not."""
    policies = [FoldSide(Scene(yaml_of(name), ())).policy for name in SCENARIOS]

    assert len({roles_for(policy) for policy in policies}) == 1
    assert len({tuple(topic_counts(policy.provider_names, 6)) for policy in policies}) == 1
    assert len({tuple(policy.models) for policy in policies}) == 1
    assert len({policy.hash for policy in policies}) == len(SCENARIOS)
    demo = FoldSide(Scene(yaml_of("demo"), ())).policy
    assert set(topic_counts(policies[0].provider_names, 6)) == set(topic_counts(demo.provider_names, 6))


async def test_the_same_requests_go_elsewhere_under_another_scenario() -> None:
    """All fixtures together under each policy: no two scenarios agree on all of them."""
    lines = [raw for name in SCENARIOS for raw in _renamed(name)]
    chosen = []
    for name in SCENARIOS:
        cores, _ = await routed(name, lines)
        chosen.append(tuple(sorted((key, core.chosen) for key, core in cores.items())))

    assert len({len(row) for row in chosen}) == 1
    assert len(set(chosen)) == len(SCENARIOS)


def _renamed(name: str) -> list[bytes]:
    rows = [orjson.loads(raw) for raw in asked(name)]
    return [orjson.dumps({**row, "custom_id": f"{name}/{row['custom_id']}"}) for row in rows]


async def test_what_must_stay_in_the_house_has_no_way_out() -> None:
    """No step of its plan, fallbacks included, is of the other provider."""
    private, _ = await routed("privacy", asked("privacy"))
    several, _ = await routed("multi-provider", asked("multi-provider"))
    released = {key for key, core in private.items() if core.decision.startswith("released")}
    kept = [core for key, core in private.items() if key not in released]
    kept += [core for core in several.values() if core.decision == "stays_in_the_eu"]

    assert released == {"public", "public-long"}
    assert {step.provider for core in kept for step in core.plan} == {"north"}
    assert {step.provider for key in released for step in private[key].plan} == {"north", "south"}
