"""Free loopback ports for servers that must be findable again after a crash.

Ports are taken from below the kernel's ephemeral range: an outgoing connection can
then neither steal the port of a killed server nor connect to itself on it.
"""

import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from infra.local.errors import PortTaken

LOOPBACK = "127.0.0.1"
LOWEST = 15_000
ATTEMPTS = 500
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ephemeral_floor(range_file: Path = _RANGE_FILE) -> int:
    """Return the first port that the kernel hands to outgoing connections."""
    try:
        return int(range_file.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on *port* now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int, *, avoid: Iterable[int] = ()) -> tuple[int, ...]:
    """Return *count* different ports that nothing listens on.

    Raises:
        PortTaken: no free port was met in many tries.
    """
    floor = ephemeral_floor()
    low, high = (LOWEST, floor) if floor > LOWEST + 1_000 else (LOWEST, 65_000)
    refused = set(avoid)
    found: list[int] = []
    for _ in range(ATTEMPTS):
        if len(found) == count:
            break
        port = low + secrets.randbelow(high - low)
        if port not in refused and is_free(port):
            found.append(port)
        refused.add(port)
    if len(found) < count:
        raise PortTaken(
            f"no {count} free ports between {low} and {high} on {LOOPBACK}: stop what listens there "
            "(ss -ltnp shows it)"
        )
    return tuple(found)
