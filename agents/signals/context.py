"""How many tokens a request will take, estimated from its bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from agents.complaints import Oddity
from agents.content import Content
from agents.signals import Heuristic, signal
from schemas.signal import Observation

_SUFFIXES = {"K": 1_000, "M": 1_000_000}
_MOST = 1 << 62


def tokens(written: str) -> int | None:
    """Return the count that *written* stands for (``16K``, ``1.5m``, ``1e3``; "" is 0), else None."""
    text = written.strip()
    factor = _SUFFIXES.get(text[-1:].upper(), 1)
    digits = text if factor == 1 else text[:-1]
    if not text:
        return 0
    if "_" in digits:
        return None
    try:
        count = float(digits) * factor
    except ValueError:
        return None
    return max(min(math.trunc(count), _MOST), -_MOST) if math.isfinite(count) else None


Tokens = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int | float) else v)]


@signal
class Context(Heuristic):
    """Match when the estimated tokens of the whole envelope lie in [min_tokens, max_tokens].

    A bound that cannot be read disables the rule, and without `max_tokens` it matches nothing.
    """

    collection: ClassVar[str] = "context"
    type: Literal["context"] = "context"
    description: str = ""
    min_tokens: Tokens = ""
    max_tokens: Tokens = ""
    # Ours: in the original a rule without max_tokens matches nothing.
    missing_max: Literal["nothing", "unlimited"] = "nothing"

    @cached_property
    def bounds(self) -> tuple[int, int] | None:
        """The least and the greatest estimate that match, None if either cannot be read."""
        least, most = tokens(self.min_tokens), tokens(self.max_tokens)
        if not self.max_tokens.strip() and self.missing_max == "unlimited":
            most = _MOST
        return None if least is None or most is None else (least, most)

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over bounds by which the rule can never match."""
        for key, written in (("min_tokens", self.min_tokens), ("max_tokens", self.max_tokens)):
            if tokens(written) is None:
                yield Oddity(
                    (key,), "unreadable-tokens", "cannot be read, so the rule never matches", "a number"
                )
        if not self.max_tokens.strip() and self.missing_max == "nothing":
            message = "without max_tokens the rule never matches"
            fix = ((("missing_max",), "unlimited"),)
            yield Oddity((), "missing-max-tokens", message, "missing_max: unlimited", fix)

    def evaluate(self, content: Content) -> Observation:
        """Return whether the estimate lies in the range; the value is the estimate."""
        estimate = content.token_floor
        matched = self.bounds is not None and self.bounds[0] <= estimate <= self.bounds[1]
        return self.observed(matched=matched, value=float(estimate))
