"""A broker over TLS with SCRAM and over mTLS: clients get in, the others are told why not."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agents.errors import Unavailable
from schemas.topics import REQUESTS
from streams.app import load_registries
from streams.kafka import KafkaLog, KafkaSettings
from streams.reachability import why_unreachable
from streams.security import BrokerSecurity
from streams.topics_admin import create_topics
from tests.certificates import Authority
from tests.live.secured import Secured, secured_broker

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kafka_jars"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a broker on a loaded machine the time to say what is wrong."""
    monkeypatch.setattr("streams.reachability._PATIENCE_S", 20.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scram(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """A broker over TLS where users log in."""
    _ = kafka_jars
    async with secured_broker(tmp_path_factory.mktemp("scram"), "SASL_SSL", ("admin", "worker")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mutual(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """A broker over TLS that asks for certificates."""
    _ = kafka_jars
    async with secured_broker(tmp_path_factory.mktemp("mutual"), "SSL") as found:
        yield found


async def round_trip(address: str, security: BrokerSecurity, prefix: str) -> None:
    """Create topics, write a record, join a group, read it, commit, and ask for the commit."""
    load_registries()
    settings = KafkaSettings(address, prefix, security.arguments())
    await create_topics(settings, ["north"], partitions=1)
    log = KafkaLog(settings)
    await log.start()
    try:
        assert await log.cluster_id()
        await (await log.send((REQUESTS, 0), b"k", b"v"))
        consumer = log.consumer(f"{prefix}.g", [REQUESTS], "one")

        async def listener(_partitions: Any) -> None:
            return None

        await consumer.start(listener, listener)
        found: list[bytes | None] = []
        while not found:
            found = [e.value for batch in (await consumer.poll(0.5)).values() for e in batch]
        assert found == [b"v"]
        await consumer.stop()
    finally:
        await log.stop()


async def test_users_log_in_over_tls(scram: Secured) -> None:
    """Every client that a log is made of works with SCRAM-SHA-512 over TLS."""
    await round_trip(scram.address, scram.security(), "one")


async def test_certificates_are_enough_over_mutual_tls(mutual: Secured) -> None:
    """Every client that a log is made of works with a certificate alone."""
    await round_trip(mutual.address, mutual.security(), "one")


async def refusal(address: str, security: BrokerSecurity) -> str:
    """Return what a log says that cannot connect."""
    log = KafkaLog(KafkaSettings(address, "one", security.arguments()))
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(log.start(), 120)
    return str(caught.value)


async def test_each_mistake_is_named_with_what_to_do(scram: Secured, tmp_path: Path) -> None:
    """Password, user, CA, protocol, mechanism: the message says which it is, and quotes no secret."""
    stranger = Authority(tmp_path, "stranger")
    in_the_clear = BrokerSecurity()
    mistakes = {
        "login of 'worker' was refused: check user name and password": scram.security(
            "worker", sasl_plain_password="wrong-password-here"
        ),
        "login of 'nobody' was refused": scram.security(sasl_plain_username="nobody"),
        "certificate is not trusted .*set ssl_cafile": scram.security(ssl_cafile=stranger.certificate),
        "the port speaks TLS, and we did not": in_the_clear,
        "does not offer PLAIN: set sasl_mechanism": scram.security(sasl_mechanism="PLAIN"),
        "SASL login": BrokerSecurity(security_protocol="SSL", ssl_cafile=scram.authority.certificate),
    }
    for expected, security in mistakes.items():
        said = await refusal(scram.address, security)
        assert re.search(expected, said), said
        assert "wrong-password-here" not in said
        assert all(password not in said for password in scram.passwords.values())


async def test_a_certificate_of_another_host_is_named(scram: Secured) -> None:
    """The broker's certificate is for its address; asked for by name, it is not."""
    port = scram.address.rpartition(":")[2]
    said = await refusal(f"localhost:{port}", scram.security())

    assert "the broker's certificate is not for 'localhost'" in said


async def test_a_missing_or_foreign_client_certificate_is_named(mutual: Secured, tmp_path: Path) -> None:
    """Without a certificate, or with one of a stranger, the message says to set one."""
    bare = BrokerSecurity(security_protocol="SSL", ssl_cafile=mutual.authority.certificate)
    foreign = Authority(tmp_path, "stranger").issue("admin")
    strange = mutual.security(ssl_certfile=foreign.certificate, ssl_keyfile=foreign.key)

    assert "ssl_certfile" in await refusal(mutual.address, bare)
    assert "ssl_certfile" in await refusal(mutual.address, strange)


async def test_tls_towards_what_speaks_none_is_named(scram: Secured) -> None:
    """A server that knows no TLS, and a port where nobody listens, are two things."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no\r\n\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    arguments = scram.security().arguments()
    assert "does not speak TLS" in str(await why_unreachable(f"127.0.0.1:{port}", arguments))
    server.close()
    await server.wait_closed()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free = unused.getsockname()[1]
    assert "nothing listens there" in str(await why_unreachable(f"127.0.0.1:{free}", arguments))


async def test_a_broker_that_can_be_used_has_nothing_wrong(scram: Secured, mutual: Secured) -> None:
    """The questions are those of a client that works."""
    assert await why_unreachable(scram.address, scram.security().arguments()) is None
    assert await why_unreachable(mutual.address, mutual.security().arguments()) is None


def command_lines() -> str:
    """Return the arguments of every process."""
    shown = ""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # gone meanwhile
            shown += path.read_text(errors="replace")
    return shown


async def test_passwords_show_in_no_list_of_processes(scram: Secured) -> None:
    """Neither the broker's own processes nor their settings on disk hold a password in the clear."""
    shown = await asyncio.to_thread(command_lines)
    settings = (scram.folder / "kafka" / "server.properties").read_text()

    assert not (scram.folder / "kafka" / "format.arguments").exists()
    for password in scram.passwords.values():
        assert password not in shown
        assert password not in settings
        assert password not in repr(KafkaSettings(scram.address, "p", scram.security().arguments()))
        assert password not in repr(scram.security())


async def test_the_context_checks_host_and_chain(scram: Secured) -> None:
    """There is no setting that turns verification off."""
    context = scram.security().arguments()["ssl_context"]

    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
