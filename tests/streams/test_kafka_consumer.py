"""Our consumer keeps assignments apart, whatever the client library still has of the last one."""

import asyncio
from types import SimpleNamespace
from typing import Any

from streams.kafka import KafkaLog, KafkaSettings
from streams.kafka_consumer import KafkaConsumer


class Assignment:
    """The client's assignment of one partition, read up to *position*."""

    def __init__(self, tp: Any, position: int) -> None:
        self.tps = {tp}
        self._state = SimpleNamespace(has_valid_position=True, position=position)

    def state_value(self, _tp: Any) -> Any:
        """Return where its partition was read up to."""
        return self._state


class Client:
    """Stands for the client library: nothing fetched, and an assignment that the test exchanges."""

    def __init__(self, assignment: Assignment) -> None:
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._coordinator = SimpleNamespace(member_id="member-1")

    def assign(self, assignment: Assignment) -> None:
        """Put *assignment* in the place of the last one."""
        self._subscription.subscription.assignment = assignment

    async def getmany(self, **_: Any) -> dict[Any, Any]:
        """Return nothing."""
        return {}


async def test_positions_of_an_assignment_that_ended_are_not_the_next_ones() -> None:
    """A poll that returns while partitions are taken away tells nothing about those given afterwards."""
    log = KafkaLog(KafkaSettings("127.0.0.1:1"))
    consumer = KafkaConsumer(log, log._settings, "group", ["requests"], "worker-0")
    unused = consumer._consumer
    tp = log.native(("requests", 0))
    client = Client(Assignment(tp, 107))
    vars(consumer)["_consumer"] = client
    consumer.let_go()
    polling = asyncio.create_task(consumer.poll(0.0))
    await asyncio.sleep(0)
    client.assign(Assignment(tp, 67))
    consumer.take_over()
    assert await polling == {}
    assert consumer.reached() == {}
    await consumer.poll(0.0)
    assert consumer.reached() == {("requests", 0): 67}
    await unused.stop()
