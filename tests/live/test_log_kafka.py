"""Kafka is a `Log`: the same suite as the in-memory one's, on a real broker."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from infra.local.kafka import Kafka, KafkaOptions
from streams.app import load_registries
from streams.kafka import KafkaLog, KafkaSettings
from streams.log import TP, Consumer
from streams.topics_admin import create_topics
from tests.suites.delivery_suite import DeliverySuite
from tests.suites.log_suite import PARTITIONS, A, Bench, LogSuite, shares, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kafka_jars"),
    pytest.mark.asyncio(loop_scope="module"),
]
_PREFIXES = (f"suite{n}" for n in itertools.count())


class KafkaBench(Bench):
    """Topics of a prefix of their own on a broker that all tests share."""

    async def crash(self, consumer: Consumer) -> None:
        """Stop: a static member does not tell its group, just as a killed one does not."""
        await consumer.stop()

    async def gap(self, place: TP, count: int) -> None:
        """Abort a transaction: its records and its marker keep their offsets, and nobody may read them."""
        assert isinstance(self.log, KafkaLog)
        native = self.log.native(place)
        producer = AIOKafkaProducer(
            bootstrap_servers=self.log._settings.bootstrap,
            transactional_id=f"{self.log.prefix}-{next(_PREFIXES)}",
        )
        await producer.start()
        await producer.begin_transaction()
        for _ in range(count):
            await producer.send(native.topic, b"aborted", partition=native.partition)
        await producer.abort_transaction()
        await producer.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a real broker."""
    _ = kafka_jars
    kafka = Kafka(KafkaOptions(folder=tmp_path_factory.mktemp("kafka")))
    yield await kafka.start()
    await kafka.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(broker: str) -> AsyncIterator[Bench]:
    """A log of a new prefix; a member that died is given up after the least time that brokers allow."""
    load_registries()  # which roles there are says which topics
    settings = KafkaSettings(broker, prefix=next(_PREFIXES), session_timeout_ms=6_000)
    await create_topics(settings, ["north"], partitions=PARTITIONS)
    log = KafkaLog(settings)
    await log.start()
    bench = KafkaBench(log)
    yield bench
    await bench.close()
    await log.stop()


class TestKafkaLog(LogSuite):
    """The suite on a real broker, and what only a real one can show."""

    async def test_a_quick_restart_disturbs_nobody(self, bench: Bench) -> None:
        """A static member that comes back within its session causes no rebalance of the others."""
        assert isinstance(bench.log, KafkaLog)
        # A session that a loaded machine does not outlast while the member is away.
        bench.log._settings = replace(bench.log._settings, session_timeout_ms=60_000)
        members = [await bench.member("g", name).start() for name in ("m1", "m2")]
        await until(lambda: shares(members) == [[0, 1], [2, 3]])
        before = members[1].assignments
        await members[0].crash()
        members[0] = await bench.member("g", "m1").start()
        await until(lambda: shares(members) == [[0, 1], [2, 3]])

        assert members[1].assignments == before
        for member in members:
            await member.stop()

    async def test_a_member_that_stays_away_is_succeeded(self, bench: Bench) -> None:
        """After its session the others take its partitions over, from its last commit."""
        first, second = [await bench.member("g", name).start() for name in ("m1", "m2")]
        await until(lambda: shares([first, second]) == [[0, 1], [2, 3]])
        await bench.fill((A, 0), 4)
        await until(lambda: len(first.got) == 4)
        await first.crash()
        await until(lambda: shares([second]) == [[0, 1, 2, 3]])
        await until(lambda: second.offsets((A, 0)) == [0, 1, 2, 3])
        await second.stop()


class TestKafkaDelivery(DeliverySuite):
    """The suite on a real broker."""
