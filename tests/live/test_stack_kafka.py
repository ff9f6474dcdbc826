"""The embedded Kafka: starts, keeps its records over SIGKILL, leaves nothing running."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from infra.local.errors import PortTaken
from infra.local.identity import Identity
from infra.local.kafka import Kafka, KafkaOptions
from infra.local.kafka_properties import MESSAGE_BYTES

pytestmark = [pytest.mark.live, pytest.mark.timeout(420), pytest.mark.usefixtures("kafka_jars")]
RECORDS = 500
LIMIT = 2 * MESSAGE_BYTES


async def make_topic(address: str, name: str) -> None:
    """Create a topic that takes records as large as the broker does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1)])
    finally:
        await admin.close()


async def produce(address: str, topic: str, values: list[bytes]) -> None:
    """Produce *values* and wait until the broker has acknowledged them."""
    producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True, max_request_size=LIMIT)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value) for value in values])
    finally:
        await producer.stop()


async def consume(address: str, topic: str, count: int) -> set[bytes]:
    """Read *count* records as a new consumer group."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, group_id="g", auto_offset_reset="earliest")
    await consumer.start()
    try:
        return {(await asyncio.wait_for(consumer.getone(), 90)).value for _ in range(count)}
    finally:
        await consumer.stop()


async def test_records_port_and_cluster_survive_a_sigkill(tmp_path: Path) -> None:
    """A crashed broker comes back where it was, with every acknowledged record."""
    kafka = Kafka(KafkaOptions(folder=tmp_path))
    values = [b"%d" % number for number in range(RECORDS)]
    try:
        address = await kafka.start()
        cluster = kafka.cluster_id
        await make_topic(address, "t")
        await produce(address, "t", values)
        await kafka.kill()
        assert not await kafka.health()

        assert await kafka.start() == address

        assert kafka.cluster_id == cluster
        assert await consume(address, "t", RECORDS) == set(values)
    finally:
        await kafka.stop()


async def test_records_survive_stop_and_start_by_another_adapter(tmp_path: Path) -> None:
    """The data folder alone is enough; large records pass, larger ones do not, no topic is made up."""
    first, second = Kafka(KafkaOptions(folder=tmp_path)), Kafka(KafkaOptions(folder=tmp_path))
    large = b"x" * (2 * 1024 * 1024)
    try:
        address = await first.start()
        await make_topic(address, "t")
        await produce(address, "t", [large])
        with pytest.raises(MessageSizeTooLargeError):
            await produce(address, "t", [b"x" * (MESSAGE_BYTES + 1)])
        await first.stop()

        assert await second.start() == address
        assert await consume(address, "t", 1) == {large}
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        described = await admin.describe_topics(["misspelt"])
        await admin.close()
        assert described[0]["error_code"] != 0
    finally:
        await first.stop()
        await second.stop()


async def test_a_wanted_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The user reads which port, and how to see whose it is."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(PortTaken, match=rf"port {port} is in use \(ss -ltnp"):
            await Kafka(KafkaOptions(folder=tmp_path, port=port)).start()


def test_the_debugging_entry_prints_the_address_and_ends_with_sigterm(tmp_path: Path) -> None:
    """`python -m infra.local.kafka` runs a broker until it is told to stop."""
    command = [sys.executable, "-m", "infra.local.kafka", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as entry:
        assert entry.stdout is not None
        address = entry.stdout.readline().strip()
        host, _, port = address.partition(":")
        socket.create_connection((host, int(port)), timeout=60).close()
        java = children(entry.pid)
        assert java
        entry.terminate()

        assert entry.wait(60) == 0
    assert not any(identity.alive() for identity in java)


def children(pid: int) -> list[Identity]:
    """Return the processes that *pid* started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [identity for child in listed if (identity := Identity.of(int(child))) is not None]
