"""What every test runs under: no connection leaves this machine, and properties are tried alike every time.

The audit hook sees Python's own sockets, not those that C libraries (gRPC, libuv) open by themselves.

Examples of properties are drawn from the test itself, so that a change is judged by what it changes and
never by the luck of its run. `make explore` draws others each time, and more.
"""

import ipaddress
import socket
import sys

from hypothesis import settings

_NAMES = frozenset({None, "", "localhost", socket.gethostname()})
_MANY = 2_000
_HOST_ARGUMENT = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}


# `ci` is Hypothesis's own: the same examples each time, no time limit for one, no data base of failures.
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False, max_examples=_MANY)
settings.load_profile("ci")


class NetworkForbiddenError(RuntimeError):
    """A test tried to reach another machine."""


def _is_loopback(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if not isinstance(text, str) or text in _NAMES:
        return text in _NAMES
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _forbid_network(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _HOST_ARGUMENT:
        return
    target = arguments[_HOST_ARGUMENT[event]]
    if event != "socket.getaddrinfo":
        if not isinstance(target, tuple):
            return  # a path: a Unix socket
        target = target[0]
    if not _is_loopback(target):
        message = f"{event} to {target!r}: tests reach nothing but this machine; use a fake"
        raise NetworkForbiddenError(message)


def pytest_configure() -> None:
    """Forbid the network before the first test module is imported; an audit hook cannot be removed again."""
    sys.addaudithook(_forbid_network)
