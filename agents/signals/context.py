"""How many tokens a request will take, estimated from its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

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

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Callable[[Content], Sequence[Observation]]:
        """Return what observes all *configs*, the estimate labelled ``tokens`` before them.

        It is no value of the rules: in the original their raw number, which a score may read, is 0.
        """

        def observe(content: Content) -> list[Observation]:
            estimate = content.token_floor
            told = configs[0].observed(matched=False, label="tokens", value=float(estimate))
            return [told, *(config.judged(estimate) for config in configs)]

        return observe

    def evaluate(self, content: Content) -> Observation:
        """Return whether the estimate lies in the range."""
        return self.judged(content.token_floor)

    def judged(self, estimate: int) -> Observation:
        """Return the observation for an *estimate*, in tokens."""
        bounds = self.bounds
        return self._matched if bounds is not None and bounds[0] <= estimate <= bounds[1] else self._unmatched

    @cached_property
    def _matched(self) -> Observation:
        return self.observed(matched=True)

    @cached_property
    def _unmatched(self) -> Observation:
        return self.observed(matched=False)
