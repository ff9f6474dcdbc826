"""How many tokens a request will take, estimated from its bytes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from agents.content import Content
from agents.signals import Heuristic, signal
from schemas.signal import Observation

_SUFFIXES = {"K": 1_000, "M": 1_000_000}


def _tokens(value: object) -> object:
    """Return a token count written as 16K or 1M as a number; other values pass to validation."""
    if isinstance(value, str) and value[-1:].upper() in _SUFFIXES:
        try:
            return int(float(value[:-1]) * _SUFFIXES[value[-1].upper()])
        except (ValueError, OverflowError):
            return value
    return value


Tokens = Annotated[int, BeforeValidator(_tokens)]


@signal
class Context(Heuristic):
    """Match when the estimated tokens of the whole envelope lie in [min_tokens, max_tokens]."""

    collection: ClassVar[str] = "context"
    type: Literal["context"] = "context"
    min_tokens: Tokens = 0
    max_tokens: Tokens

    def evaluate(self, content: Content) -> Observation:
        """Return whether the estimate lies in the range; the value is the estimate."""
        tokens = content.token_floor
        return self.observed(matched=self.min_tokens <= tokens <= self.max_tokens, value=float(tokens))
