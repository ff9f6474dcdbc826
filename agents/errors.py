"""The tree of what can go wrong, grouped by what the shell does about it.

RouterError
├── ConfigError              refuse to start, or refuse the policy
├── Unavailable              retry, then degrade     (classifier, provider, broker)
│   ├── NotSent              no connection was made, so nothing was asked
│   └── CallTimeout          a call got no answer within its timeout
├── StoreFull                refuse: the claim store takes nothing more
├── Rejected                 never retry             (provider refuses the call)
├── Refused                  the request cannot be admitted; its caller is told why
├── PolicyMissing            wait: the stamped policy has not been read yet
├── InvalidRecord            dead-letter             (cannot decode, breaks contract)
│   └── PoisonRecord         it ended its process while it ran alone, again and again
├── Fenced                   stop: another process goes by this one's name
└── NondeterminismError      replay only: fail the run
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any


class RouterError(Exception):
    """Anything that this project raises on purpose."""


class ConfigError(RouterError):
    """A configuration cannot be used; the message says where and what to change."""


class Unavailable(RouterError):
    """An outside service did not answer usefully; asking again may help."""


class NotSent(Unavailable):
    """No connection could be made: the call certainly took no effect."""


class CallTimeout(Unavailable):
    """A call got no answer within its timeout; whether it took effect is unknown.

    *late*, if given, ends with the answer should it still come, or raises what prevents it.
    """

    def __init__(self, message: str, late: Awaitable[Any] | None = None) -> None:
        super().__init__(message)
        self.late = late


class StoreFull(RouterError):
    """The claim store takes nothing more; what was being admitted is refused, nothing of it is kept."""


class Rejected(RouterError):
    """An outside service refuses the call and would refuse it again."""


class Refused(RouterError):
    """A request cannot be admitted; *code* is the machine-readable reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PolicyMissing(RouterError):
    """A record is stamped with a policy that this process has not read back yet."""

    def __init__(self, policy_hash: str) -> None:
        super().__init__(f"policy {policy_hash[:12]} has not been read from control.policy yet")
        self.policy_hash = policy_hash


class InvalidRecord(RouterError):
    """Bytes that are no record of ours, or a record that breaks its contract."""


class PoisonRecord(InvalidRecord):
    """A record whose step ended the process, each time while nothing else was in flight."""


class Fenced(RouterError):
    """Another process uses this member's instance name; this one must stop, not take the name back."""


class NondeterminismError(RouterError):
    """A logged decision could not be made again from what the log says it was made of."""
