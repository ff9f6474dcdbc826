"""What signals may look at: one parsed view of a request's body and headers, made once per role.

The body is the caller's chat-completions JSON; nothing here keeps or reports its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from agents.errors import InvalidRecord
from agents.text.edits import words
from agents.text.envelope import token_floor
from agents.text.fold import lower
from agents.text.matching import Haystack
from agents.text.occurrence import units
from agents.text.shape import Shape, shape_of
from schemas.sealed import Body, unseal

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in *body*; raises `InvalidRecord` without quoting it."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _leniently(body)
    if not isinstance(document, dict):
        message = "the body is not a JSON object"
        raise InvalidRecord(message)
    return document


def at_hand(body: Body) -> bytes:
    """Return the plain bytes of an inline *body*; raises `InvalidRecord` if they are kept elsewhere.

    Raises ValueError if they are sealed with a key that is not held here.
    """
    if body.sealed is None:
        message = "the body is kept elsewhere and was not fetched"
        raise InvalidRecord(message)
    return unseal(body.sealed)


def _leniently(body: bytes) -> object:
    """Return what *body* holds where a lone surrogate, or an old encoder, is all that is wrong with it."""
    try:
        return json.loads(body, object_pairs_hook=_replaced)
    except (ValueError, RecursionError):
        message = "the body is not valid JSON"
        raise InvalidRecord(message) from None


def _replaced(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_clean(key): _cleaned(value) for key, value in pairs}


def _cleaned(value: Any) -> Any:  # noqa: ANN401 - a caller's JSON
    if isinstance(value, str):
        return _clean(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Identity:
    """The headers in which an authenticating proxy says who asks."""

    user_header: str = "x-authz-user-id"
    groups_header: str = "x-authz-user-groups"


@dataclass(frozen=True)
class Content:
    """A request's body and its headers, by lower-case name, as signals see them."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    identity: Identity = Identity()

    @cached_property
    def document(self) -> dict[str, Any]:
        """The parsed body."""
        return parse(self.body)

    @cached_property
    def shape(self) -> Shape:
        """Who said what, how often, and which tools are there."""
        return shape_of(self.document)

    @cached_property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The chat messages that are objects, in order."""
        messages = self.document.get("messages")
        return tuple(m for m in messages if isinstance(m, dict)) if isinstance(messages, list) else ()

    @cached_property
    def user(self) -> str:
        """Who asks, "" where no header says it."""
        return self.headers.get(self.identity.user_header, "")

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups of who asks, trimmed, as the header lists them."""
        listed = self.headers.get(self.identity.groups_header, "").split(",")
        return tuple(group for group in (name.strip() for name in listed) if group)

    @cached_property
    def user_text(self) -> str:
        """The last user turn that has any text, else nothing."""
        return self.shape.user_text

    @cached_property
    def text(self) -> str:
        """The last user turn; where there is none, what system and assistant said, joined by blanks."""
        return self.user_text or " ".join(self.shape.other_texts)

    @cached_property
    def encoded(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode("utf-8", "replace")

    @cached_property
    def lowered(self) -> str:
        """The text, lower-cased rune by rune."""
        return lower(self.text)

    @cached_property
    def units(self) -> int:
        """How many words the text has in any language."""
        return units(self.text)

    @cached_property
    def haystack(self) -> Haystack:
        """The text as matchers look at it."""
        return Haystack(self.text, self.encoded)

    @cached_property
    def words(self) -> list[str]:
        """The distinct runs of letters and digits, lower-cased."""
        return words(self.text)

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The request's metadata map; entries that are no strings are left out."""
        metadata = self.document.get("metadata")
        if not isinstance(metadata, dict):
            return {}
        return {k: v for k, v in metadata.items() if isinstance(v, str)}

    @cached_property
    def token_floor(self) -> int:
        """A lower estimate of the tokens of the whole envelope."""
        return token_floor(self.document, self.body)
