"""Topics and rights on a real broker that enforces them: every role works with its own only."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from agents.errors import CallTimeout
from agents.ports import HttpReply
from infra.simulated_llm.in_process import InProcess
from schemas.topics import full_name
from streams.app import Context, Ports, Tuning, load_registries, make_world, roles_for, runner_for
from streams.batch import BatchOptions, submit, wait
from streams.host import Fleet, Host
from streams.kafka import KafkaLog, KafkaSettings
from streams.policies import publish
from streams.runs import counts
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from streams.worker import no_classifier
from tests.architecture.repository import ROOT
from tests.live.secured import Secured, secured_broker
from tests.streams.batch_world import POLICY, batch_file, line, policy, profile

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(420),
    pytest.mark.usefixtures("kafka_jars"),
    pytest.mark.asyncio(loop_scope="module"),
]

load_registries()
PREFIX = "signalbox"
_PATIENCE_S = 120.0
ROLES = roles_for(policy())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """A broker with a user for each role, where nobody but admin may do anything yet."""
    _ = kafka_jars
    users = ("admin", "submit", *ROLES)
    async with secured_broker(tmp_path_factory.mktemp("acls"), "SASL_SSL", users) as found:
        (found.folder / "policy.yaml").write_text(POLICY)
        yield found


def topics(broker: Secured, *arguments: str, partitions: int = 2) -> tuple[int, Any]:
    """Run `signalbox topics` as admin; return the exit code and the JSON object."""
    environment = {
        "SIGNALBOX_BROKER_SETTINGS": str(broker.settings_file()),
        "SIGNALBOX_PARTITIONS": str(partitions),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "signalbox", "topics", *arguments, "--json"]
    command += ["--broker", broker.address, "--policy", str(broker.folder / "policy.yaml")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


async def test_plan_shows_what_apply_then_makes_so(broker: Secured) -> None:
    """All is created, nothing is left to do, a change by hand is seen and undone, other settings are kept."""
    code, before = topics(broker, "plan")
    assert (code, {change["what"] for change in before["changes"]}) == (1, {"create"})
    assert topics(broker, "apply")[0] == 0
    assert topics(broker, "plan")[0] == 0
    requests = full_name(PREFIX, "requests")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address, **broker.security().arguments())
    await admin.start()
    by_hand = {"retention.ms": "1000", "segment.bytes": "2000000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, requests, by_hand)])
    code, seen = topics(broker, "plan")
    changed = {change["what"]: change["has"] for change in seen["changes"]}
    assert (code, changed["retention.ms"]) == (1, "1000")
    assert topics(broker, "apply")[0] == 0
    assert topics(broker, "plan")[0] == 0
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, requests)])
    await admin.close()
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert (settings["segment.bytes"], settings["message.timestamp.type"]) == ("2000000", "LogAppendTime")


async def test_apply_refuses_to_change_partitions(broker: Secured) -> None:
    """The broker keeps what it has, and the reason is told."""
    code, told = topics(broker, "apply", partitions=5)
    refused = [change for change in told["changes"] if change["refused"]]

    assert code == 1
    assert {change["what"] for change in refused} == {"partitions"}
    assert "never change" in refused[0]["why"]
    assert topics(broker, "plan")[0] == 0


async def test_every_role_routes_a_batch_with_its_own_rights(broker: Secured, tmp_path: Path) -> None:
    """Each role and the submitter log in as themselves, with what `topics acls --apply` gave them."""
    code, told = topics(broker, "acls", "--apply")
    assert (code, told["created"] > 20) == (0, True), told
    assert topics(broker, "acls", "--apply")[1]["created"] == 0
    failures: list[str] = []
    complete = InProcess(profile(), 0, reply=HttpReply, timed_out=CallTimeout)
    async with AsyncExitStack() as stack:
        admin = await world_of(broker, "admin", stack)
        await publish(admin.outbox, policy(), "up", admin.now(), activate=True)
        for role in ROLES:
            world = await world_of(broker, role, stack)
            world.telemetry.failed = lambda stage, error: failures.append(f"{stage}: {error}")
            await world.policies.start()
            stack.push_async_callback(world.policies.stop)
            context = Context(await world.log.cluster_id(), 2)
            runner = runner_for(role, world, Ports(no_classifier, complete), Tuning(), {}, context)
            fleet = Fleet(role, [Host(runner, world.log, world.telemetry, f"{role}-0")])
            await fleet.start()
            stack.push_async_callback(fleet.stop)
        client = await world_of(broker, "submit", stack)
        await client.policies.start()
        stack.push_async_callback(client.policies.stop)
        file = batch_file(tmp_path, [line("a"), line("b", "Python")])
        submission = await submit(client, file, policy(), BatchOptions())
        with suppress(TimeoutError):
            await asyncio.wait_for(wait(client, submission), _PATIENCE_S)

        assert failures == []
        assert counts(submission.view)["completed"] == 2


async def world_of(broker: Secured, user: str, stack: AsyncExitStack) -> Any:
    """Return the world of *user*, connected."""
    log = KafkaLog(KafkaSettings(broker.address, PREFIX, broker.security(user).arguments()))
    await log.start()
    stack.push_async_callback(log.stop)
    return make_world(log, Telemetry(wall_clock, user, quiet=True), user)


@pytest.mark.parametrize(
    ("user", "topic"), [("signals.heuristics", "decisions"), ("decision", "requests"), ("retry", "results")]
)
async def test_a_role_cannot_write_anothers_topic(broker: Secured, user: str, topic: str) -> None:
    """The broker refuses the record."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, **broker.security(user).arguments())
    await producer.start()
    with pytest.raises(TopicAuthorizationFailedError):
        await producer.send_and_wait(full_name(PREFIX, topic), b"v", partition=0)
    await producer.stop()


@pytest.mark.parametrize(
    ("user", "topic"),
    [("signals.heuristics", "results"), ("decision", "jobs.north.batch"), ("provider.north", "requests")],
)
async def test_a_role_cannot_read_anothers_topic(broker: Secured, user: str, topic: str) -> None:
    """The broker gives out no record."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, **broker.security(user).arguments())
    consumer.assign([TopicPartition(full_name(PREFIX, topic), 0)])
    with pytest.raises(TopicAuthorizationFailedError):
        await _read(consumer)
    await consumer.stop()


async def _read(consumer: AIOKafkaConsumer) -> None:
    """Connect and fetch until the broker answers; it may refuse either."""
    await consumer.start()
    async with asyncio.timeout(_PATIENCE_S):
        while not await consumer.getmany(timeout_ms=1000):
            pass


async def test_a_role_cannot_join_anothers_group(broker: Secured) -> None:
    """It could take the other's records away."""
    consumer = AIOKafkaConsumer(
        full_name(PREFIX, "requests"),
        bootstrap_servers=broker.address,
        group_id=f"{PREFIX}.decision",
        **broker.security("signals.heuristics").arguments(),
    )
    with pytest.raises(GroupAuthorizationFailedError):
        await consumer.start()
    await consumer.stop()
