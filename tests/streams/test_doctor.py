"""The doctor: each thing that can be wrong is found by its check, graded, and comes with what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.errors import CallTimeout, Unavailable
from agents.ports import HttpReply
from infra.local.commands import BUNDLED_POLICY
from infra.simulated_llm.in_process import InProcess
from schemas.topics import RESULTS
from streams import doctor
from streams.app import Ports, load_registries
from streams.cli import read_policy
from streams.doctor import Finding, Grade, Patient, examined, summary
from streams.doctor_cli import diagnosis, exit_code
from streams.doctor_services import classifiers, providers, triton
from streams.runners import World
from streams.settings import Settings, settings, wall_clock
from streams.single import single_process
from streams.worker import no_classifier
from tests.streams.batch_world import policy, profile

load_registries()
KEY = "a-secret-key"


def patient(tmp_path: Path, world: World | None = None, **given: Any) -> Patient:
    """Return a patient with settings *given*."""
    return Patient(settings(**given) if given else Settings(), policy(), tmp_path, world=world)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """Run the topology in memory."""
    complete = InProcess(profile(), 0, reply=HttpReply, timed_out=CallTimeout)
    async with single_process(policy(), Ports(no_classifier, complete), wall_clock) as world:
        yield world


def grades(found: list[Finding]) -> list[tuple[str, str]]:
    """Return check and grade of each finding."""
    return [(one.check, one.grade) for one in found]


async def test_a_full_disk_is_wrong(tmp_path: Path) -> None:
    """Less than a gibibyte is told with the place; enough is well."""
    low = replace(patient(tmp_path), free=lambda _: 1000)
    enough = replace(patient(tmp_path), free=lambda _: 2**40)

    assert grades(await examined(low, [doctor.disk])) == [("disk", "wrong")]
    assert grades(await examined(enough, [doctor.disk])) == [("disk", "ok")]


async def test_the_claim_store_is_written_once_and_left_empty(tmp_path: Path) -> None:
    """A folder that can be written is well; one that cannot is down; none at all is a note."""
    store = tmp_path / "claims"
    (tmp_path / "file").write_text("in the way")
    assert grades(await examined(patient(tmp_path, claims=str(store)), [doctor.claims])) == [("claims", "ok")]
    assert [path for path in store.rglob("*") if path.is_file()] == []
    broken = patient(tmp_path, claims=str(tmp_path / "file"), claim_budget_s=0.1)
    assert grades(await examined(broken, [doctor.claims])) == [("claims", "down")]
    assert grades(await examined(patient(tmp_path), [doctor.claims])) == [("claims", "note")]


@pytest.mark.parametrize(("skew_ms", "grade"), [(0, "ok"), (-30_000, "wrong"), (30_000, "wrong")])
async def test_a_clock_that_is_off_is_wrong(tmp_path: Path, skew_ms: int, grade: str) -> None:
    """By the time that the log gives; the tombstone that was stamped disturbs nobody."""
    async with running() as world:
        send = world.log.send

        async def shifted(*arguments: Any, **named: Any) -> Any:
            ack = await send(*arguments, **named)

            async def later() -> Any:
                placed = await ack
                return replace(placed, timestamp=placed.timestamp + skew_ms)

            return later()

        world.log.send = shifted  # type: ignore[method-assign]
        found = await examined(patient(tmp_path, world), [doctor.clock, doctor.policy])

    assert grades(found) == [("clock", grade), ("policy", "ok")]


async def test_the_active_policy_must_be_there_and_load(tmp_path: Path) -> None:
    """None at all, and one of a version that is not known here, are two things."""
    async with running() as world:
        assert grades(await examined(patient(tmp_path, world), [doctor.policy])) == [("policy", "ok")]
        world.policies.active = "0" * 64
        (unknown,) = await examined(patient(tmp_path, world), [doctor.policy])
        world.policies.active = None
        (nothing,) = await examined(patient(tmp_path, world), [doctor.policy])

    assert (unknown.grade, "cannot be loaded" in unknown.detail) == ("wrong", True)
    assert (nothing.grade, "no policy is active" in nothing.detail) == ("wrong", True)


async def test_records_of_another_version_are_noted(tmp_path: Path) -> None:
    """The last record of each topic is read; what cannot be is named by its topic."""
    async with running() as world:
        assert grades(await examined(patient(tmp_path, world), [doctor.schemas])) == [("schemas", "ok")]
        await (await world.log.send((RESULTS, 0), b"k", b"\x00\x00\x00\x03\xe7later"))
        (found,) = await examined(patient(tmp_path, world), [doctor.schemas])

    assert (found.grade, "results" in found.detail) == ("note", True)


@asynccontextmanager
async def provider_that_answers(status: int) -> AsyncIterator[tuple[str, list[Any]]]:
    """Serve a list of models, with *status*; yields its base URL and what it was asked."""
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path, request.headers.get("Authorization")))
        return web.json_response({"data": []}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "grade"), [(200, "ok"), (404, "ok"), (401, "wrong"), (403, "wrong"), (503, "down")]
)
async def test_a_provider_is_asked_for_what_costs_nothing(tmp_path: Path, status: int, grade: str) -> None:
    """One request for the list of models, with the key, which is in no finding."""
    async with provider_that_answers(status) as (url, asked):
        examinee = patient(tmp_path, providers={"north": url}, keys={"north": KEY})
        found = await examined(examinee, [providers])

    assert grades(found) == [("providers", grade)]
    assert asked == [("GET", "/v1/models", f"Bearer {KEY}")]
    assert KEY not in repr(found) + repr(examinee)


async def test_a_provider_that_nobody_set_or_that_is_away_is_told(tmp_path: Path) -> None:
    """The one is wrong, the other down; both come with what to do."""
    (unset,) = await examined(patient(tmp_path), [providers])
    (away,) = await examined(patient(tmp_path, providers={"north": "http://127.0.0.1:1/v1"}), [providers])

    assert (unset.grade, "SIGNALBOX_PROVIDERS" in unset.todo) == ("wrong", True)
    assert (away.grade, away.todo != "") == ("down", True)


async def test_triton_is_asked_only_for_policies_that_call_it(tmp_path: Path) -> None:
    """A policy of keywords needs none; the bundled one names its encoder, which must be set and answer."""
    bundled = replace(patient(tmp_path), policy=read_policy(BUNDLED_POLICY))
    away = replace(bundled, settings=settings(triton="127.0.0.1:1"))

    assert classifiers(bundled.policy) == ("encoder",)
    assert grades(await examined(patient(tmp_path), [triton])) == [("triton", "ok")]
    assert grades(await examined(bundled, [triton])) == [("triton", "wrong")]
    assert grades(await examined(away, [triton])) == [("triton", "down")]


async def test_a_broker_that_is_down_leaves_the_other_checks(tmp_path: Path) -> None:
    """What needs the broker is left out; the exit code says that a dependency is down."""
    found = await diagnosis(patient(tmp_path, broker="127.0.0.1:1"))

    assert ("broker", "down") in grades(found)
    assert {"triton", "providers", "claims", "disk"} <= {one.check for one in found}
    assert {"topics", "clock"}.isdisjoint(one.check for one in found)
    assert exit_code(found) == 3


async def test_a_check_that_fails_is_a_finding(tmp_path: Path) -> None:
    """The other checks are still made."""

    async def failing(_patient: Patient) -> AsyncIterator[Finding]:
        raise Unavailable("gone")
        yield

    found = await examined(patient(tmp_path), [failing, doctor.disk])

    assert grades(found)[0] == ("failing", "down")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("given", "code"), [(["ok", "note"], 0), (["ok", "wrong"], 1), (["wrong", "down", "ok"], 3)]
)
def test_the_exit_code_is_that_of_the_worst(given: list[Grade], code: int) -> None:
    """Notes do not count, down counts more than wrong."""
    found = [Finding("x", grade, "") for grade in given]

    assert exit_code(found) == code
    assert sum(summary(found).values()) == len(found)
