"""Whether a Kafka broker answers, embedded or external, with any client settings."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

TIMEOUT_MS = 2_000


async def broker_answers(address: str, security: Mapping[str, Any] | None = None) -> bool:
    """Return whether the broker at *address* names itself in its metadata.

    *security* are aiokafka's own arguments (security_protocol, ssl_context, sasl_*).
    """
    host, _, port = address.partition(",")[0].rpartition(":")
    if not await _listens(host, int(port)):
        # aiokafka logs an error for every refused connection; a starting broker refuses many.
        return False
    client = AIOKafkaClient(
        bootstrap_servers=address,
        request_timeout_ms=TIMEOUT_MS,
        client_id="signalbox-health",
        **(security or {}),
    )
    try:
        await asyncio.wait_for(client.bootstrap(), TIMEOUT_MS / 1000)
        return bool(client.cluster.brokers())
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        with contextlib.suppress(KafkaError, OSError):
            await client.close()


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), TIMEOUT_MS / 1000)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
