"""Ports for servers that have to be found again after a crash."""

import socket
from pathlib import Path

from infra.local.ports import ephemeral_floor, free_ports, is_free


def test_free_ports_are_different_free_and_below_the_ephemeral_range() -> None:
    """A killed server's port cannot be taken by somebody's outgoing connection."""
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)
    assert all(port < ephemeral_floor() for port in ports)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    """A listening socket takes its port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        assert not is_free(server.getsockname()[1])


def test_avoided_ports_are_not_returned() -> None:
    """A caller that holds a port in mind does not get it twice."""
    (first,) = free_ports(1)

    assert first not in free_ports(50, avoid=(first,))


def test_an_unreadable_range_falls_back_to_the_kernels_default(tmp_path: Path) -> None:
    """Where /proc hides the range, Linux's default is assumed."""
    broken = tmp_path / "range"
    broken.write_text("nonsense")

    assert ephemeral_floor(tmp_path / "missing") == 32_768
    assert ephemeral_floor(broken) == 32_768
