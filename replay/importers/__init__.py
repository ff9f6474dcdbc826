"""Request logs of other products: one file per format, which registers itself.

An importer turns one JSON line into an `Entry`: what was asked, what came of it, or (where a format keeps
the two in different lines) one of both. It reads the fields that it documents and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from agents.errors import InvalidRecord, RouterError
from agents.registry import PluginConfig, Registry

Json = Mapping[str, Any]
State = Literal["answered", "failed", "cached"]
ANSWERED: State = "answered"
FAILED: State = "failed"
CACHED: State = "cached"


class LeftOut(RouterError):
    """A line that is well formed and no chat completion; it is counted, never an error."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat completion as its caller sent it, with who asked: a user and groups (comma-separated), or "".

    `cut` tells that the product kept less than the whole prompt.
    """

    body: Json
    model: str
    user: str = ""
    groups: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a call; None is what the log does not say.

    `paid_usd` is the price that the log itself states, `at` when the call was made. `share` is the part of
    the list price that such a call costs, for where the log states none.
    """

    model: str
    state: State = ANSWERED
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    paid_usd: float | None = None
    share: float = 1.0
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line tells; where it tells one half, the other is in another line with the same *key*."""

    key: str
    asked: Asked | None
    answered: Answered | None


class Importer(PluginConfig):
    """A format; `fields` are the keys that are read, with what each is taken for."""

    fields: ClassVar[Mapping[str, str]]

    def recognises(self, line: Json) -> bool:
        """Tell whether *line* looks like one of this format; formats do not overlap."""
        raise NotImplementedError

    def read(self, line: Json) -> Entry:
        """Return what *line* tells; raises `InvalidRecord`, whose reason quotes nothing, or `LeftOut`."""
        raise NotImplementedError


importer: Registry[Importer] = Registry("importers")


def mapping_of(value: object) -> Json:
    """Return *value* if it is an object, or the text of one; else an empty one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def messages_of(value: object) -> list[Json]:
    """Return the chat messages in *value*: a list, its text, or an object that has them.

    Raises `InvalidRecord` where there are none.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRecord("messages are text that is not valid JSON") from None
    if isinstance(value, Mapping):
        value = value.get("messages", value.get("data"))
    if not isinstance(value, list) or not value:
        raise InvalidRecord("the line has no messages: the prompt was not logged")
    if not all(isinstance(message, Mapping) for message in value):
        raise InvalidRecord("a message is no object")
    return value


def count_of(value: object) -> int | None:
    """Return *value* as a number of tokens, None if it is none."""
    number = number_of(value)
    return None if number is None or number < 0 else int(number)


def number_of(value: object) -> float | None:
    """Return *value* as a number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def time_of(value: object) -> datetime | None:
    """Return *value*, seconds since 1970 or ISO text (UTC unless it says), as a time; None if it is none."""
    number = number_of(value)
    try:
        if number is not None:
            return datetime.fromtimestamp(number, UTC)
        found = datetime.fromisoformat(text_of(value))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def text_of(value: object) -> str:
    """Return *value* if it is text, else nothing."""
    return value if isinstance(value, str) else ""


def tags_of(value: object) -> dict[str, str]:
    """Return the entries of *value* that a request's metadata may have: those that are text."""
    found = mapping_of(value).items()
    return {key: text for key, text in found if isinstance(key, str) and isinstance(text, str)}
