"""Least-privilege ACLs: what each role may do on the broker, from the catalogue's writers and readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from schemas.topics import Topic, family, full_name
from streams.app import topic_counts

_RESOURCES = {"topic": 2, "group": 3}
_OPERATIONS = {"read": 3, "write": 4, "describe": 8}
_LITERAL, _ALLOW, _ANY = 3, 3, 1
_MANY = ("signals", "provider")
"""Roles that come one for each signal role or provider, and keep to their own topics."""

CLIENTS = ("submit", "run-status", "status", "pause", "resume", "dlq", "feedback")
"""Commands that connect as somebody of their own."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """*role* may do *operation* on the *resource* (topic or group) called *name*."""

    role: str
    resource: str
    name: str
    operation: str


def acls_for(role: str, prefix: str, providers: Iterable[str]) -> Sequence[Acl]:
    """Return what *role* (a worker's, or one of `CLIENTS`) may do; nothing is transactional."""
    kind, _, own = role.partition(".")
    found: set[Acl] = set()
    for name in topic_counts(providers, 1):
        topic, full = family(name), full_name(prefix, name)
        if kind in topic.consumers and _is_own(topic, name, kind, own):
            found.add(Acl(role, "topic", full, "read"))
        if kind in topic.producers and (_is_own(topic, name, kind, own) or _hands_on(topic)):
            found.add(Acl(role, "topic", full, "write"))
        if role == "submit":
            found.add(Acl(role, "topic", full, "describe"))  # it asks whether anybody would serve the policy
        if role == "dlq" and not name.startswith("control."):
            found.add(Acl(role, "topic", full, "write"))  # a redrive puts a record back where it was
    if kind not in CLIENTS:
        found.add(Acl(role, "group", f"{prefix}.{role}", "read"))
    return sorted(found)


def _is_own(topic: Topic, name: str, kind: str, own: str) -> bool:
    """Tell whether a role that comes in many is the one that *name* is of."""
    if kind not in _MANY or "<" not in topic.name:
        return True
    head = topic.name.split("<", 1)[0]
    placeholder = topic.name[len(head) :].split(">", 1)[0]
    if placeholder not in {"<role", "<provider"}:
        return True
    return name[len(head) :].split(".", maxsplit=1)[0] == own


def _hands_on(topic: Topic) -> bool:
    """Tell whether every provider's worker writes *topic*: who advances a plan writes another's jobs."""
    return topic.name.startswith("jobs.")


def principals(roles: Iterable[str], pattern: str) -> Mapping[str, str]:
    """Return role -> principal, by *pattern* with `{role}` in it."""
    return {role: pattern.replace("{role}", role) for role in roles}


def commands(acls: Sequence[Acl], who: Mapping[str, str]) -> Iterator[str]:
    """Iterate over the lines of Kafka's own tool that give the same."""
    for acl in acls:
        to_whom = f"--allow-principal '{who[acl.role]}' --operation {acl.operation.capitalize()}"
        yield f"kafka-acls.sh --add {to_whom} --{acl.resource} '{acl.name}'"


async def missing(admin: AIOKafkaAdminClient, acls: Sequence[Acl], who: Mapping[str, str]) -> Sequence[Acl]:
    """Return those that the broker does not have."""
    request = DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY)
    answer: Any = await admin._send_request(request)  # noqa: SLF001 - the library has no call for it
    _raise(answer.error_code, answer.error_message)
    has = {
        (kind, name, principal, operation)
        for kind, name, pattern, rows in answer.resources
        for principal, _host, operation, permission in rows
        if pattern == _LITERAL and permission == _ALLOW
    }
    return [acl for acl in acls if _key(acl, who) not in has]


def _key(acl: Acl, who: Mapping[str, str]) -> tuple[int, str, str, int]:
    return _RESOURCES[acl.resource], acl.name, who[acl.role], _OPERATIONS[acl.operation]


async def create(admin: AIOKafkaAdminClient, acls: Sequence[Acl], who: Mapping[str, str]) -> None:
    """Create *acls* on the broker; raises `KafkaError`."""
    for acl in acls:
        kind, name, principal, operation = _key(acl, who)
        request = CreateAclsRequest(kind, name, _LITERAL, principal, "*", operation, _ALLOW)
        answer: Any = await admin._send_to_controller(request)  # noqa: SLF001 - as above
        for code, message in answer.creation_responses:
            _raise(code, message)


def _raise(code: int, message: str | None) -> None:
    if code:
        raise for_code(code)(message or for_code(code).__name__)
