"""The suite itself cannot reach another machine."""

import asyncio
import socket

import pytest

# The range 192.0.2.0/24 is reserved for documentation (RFC 5737): no machine answers there.
ELSEWHERE = ("192.0.2.1", 80)


def test_a_connection_to_another_machine_is_refused() -> None:
    """A plain socket fails before a packet leaves."""
    with (
        socket.socket() as connection,
        pytest.raises(RuntimeError, match="tests reach nothing but this machine"),
    ):
        connection.connect(ELSEWHERE)


def test_a_name_of_another_machine_is_not_looked_up() -> None:
    """A name is refused before it is asked for."""
    with pytest.raises(RuntimeError, match=r"provider\.invalid"):
        socket.getaddrinfo("provider.invalid", 443)


async def test_asyncio_is_held_to_the_same_rule() -> None:
    """The event loop's own connections pass the same hook."""
    with pytest.raises(RuntimeError, match="tests reach nothing but this machine"):
        await asyncio.open_connection(*ELSEWHERE)


async def test_loopback_is_open() -> None:
    """A server on this machine can be reached by address and by name."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
    server.close()

    await server.wait_closed()
