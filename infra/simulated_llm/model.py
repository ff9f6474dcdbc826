"""What one simulated call comes to: a pure function of the seed and the call's identity.

No I/O, clock, global random state or memory of earlier calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from infra.simulated_llm.profile import Faults, ModelProfile, Profile

HANG = 0
"""The status of a call that is never answered."""

OK = 200
RATE_LIMITED = 429

_NORMAL = NormalDist()
_SAYING = (
    "this answer was made without a language model and carries no meaning it only has a plausible length "
    "so that queues limits prices and reports can be tried before any real provider is paid"
)
_WORDS = tuple(_SAYING.split())
_LOREM = _WORDS * 2
_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ends: an answer, an error, or (status HANG) never."""

    status: int
    fingerprint: str
    """Sixteen hex digits that name the draw; all that an answer shows of the call."""
    latency_s: float = 0.0
    """From the request to the last byte."""
    ttft_s: float = 0.0
    """From the request to the first token."""
    text: str = ""
    completion_tokens: int = 0
    finish_reason: Literal["stop", "length"] = "stop"
    code: str = ""
    """Error code in the OpenAI format; empty for an answer."""
    message: str = ""
    retry_after_s: float | None = None


class UnknownModelError(LookupError):
    """The profile has no such provider or model."""


def draw(  # noqa: PLR0913 - the identity of a call has that many parts
    profile: Profile,
    seed: int,
    provider: str,
    model: str,
    key: str,
    nth: int,
    *,
    max_tokens: int | None = None,
    spared: bool = False,
) -> Outcome:
    """Return the outcome of the *nth* call (from 0) with *key*; equal arguments, equal outcome.

    *max_tokens* shortens the drawn answer, *spared* lifts its faults; neither changes the rest.

    Raises:
        UnknownModelError: the profile has no such provider or model.
    """
    known = profile.find(provider, model)
    if known is None:
        raise UnknownModelError(f"the profile has no model {model!r} at provider {provider!r}")
    fingerprint, units = _units(f"{seed}\0{provider}\0{model}\0{nth}\0{key}")
    status = OK if spared else _fate(known.faults, units[0], units[1])
    if status == OK:
        return _answer(known, f"{provider}/{model} {fingerprint[:8]}", fingerprint, units, max_tokens)
    if status == RATE_LIMITED:
        return rate_limited(fingerprint, known.retry_after_s)
    if status == HANG:
        return Outcome(HANG, fingerprint)
    return failed(fingerprint, status, latency_s=_ttft_s(known, units))


def rate_limited(fingerprint: str, retry_after_s: float) -> Outcome:
    """Return a 429 that asks to wait *retry_after_s*."""
    return Outcome(
        RATE_LIMITED,
        fingerprint,
        code="rate_limit_exceeded",
        message="Simulated rate limit.",
        retry_after_s=retry_after_s,
    )


def failed(
    fingerprint: str, status: int, code: str = "", message: str = "", latency_s: float = 0.0
) -> Outcome:
    """Return an error with *status*; code and message have defaults."""
    return Outcome(
        status,
        fingerprint,
        latency_s=latency_s,
        ttft_s=latency_s,
        code=code or ("server_error" if status >= 500 else "invalid_request_error"),  # noqa: PLR2004 - HTTP class
        message=message or f"Simulated error {status}.",
    )


def _units(identity: str) -> tuple[str, tuple[float, ...]]:
    """Return the draw's name and its uniforms, each strictly between 0 and 1."""
    # A NUL separates the parts: it cannot occur in a name (profile.Name), so no two calls share a text.
    digest = blake2b(identity.encode(), digest_size=8 * (_DRAWS + 1)).digest()
    words = (int.from_bytes(digest[i : i + 8]) for i in range(8, len(digest), 8))
    return digest[:8].hex(), tuple(((word >> 12) + 0.5) * 2.0**-52 for word in words)


def _ttft_s(known: ModelProfile, units: tuple[float, ...]) -> float:
    return exp(known.latency.mu + known.latency.ttft_sigma * _NORMAL.inv_cdf(units[2]))


def _fate(faults: Faults, unit: float, which: float) -> int:
    """Return the status that *unit* falls on."""
    if unit < faults.hang:
        return HANG
    if unit < faults.hang + faults.rate_limit:
        return RATE_LIMITED
    if unit < faults.hang + faults.rate_limit + faults.error:
        return faults.error_statuses[int(which * len(faults.error_statuses))]
    return OK


def _answer(
    known: ModelProfile,
    name: str,
    fingerprint: str,
    units: tuple[float, ...],
    max_tokens: int | None,
) -> Outcome:
    length = known.length
    drawn = round(exp(length.mu + length.sigma * _NORMAL.inv_cdf(units[3])))
    tokens = min(max(drawn, length.minimum), length.maximum)
    cut = max_tokens is not None and max_tokens < tokens
    if cut and max_tokens is not None:
        tokens = max(max_tokens, 1)
    ttft_s = _ttft_s(known, units)
    return Outcome(
        OK,
        fingerprint,
        latency_s=ttft_s + (tokens - 1) * known.latency.per_token_ms / 1000.0,
        ttft_s=ttft_s,
        text=_text(name, tokens, int(units[4] * len(_WORDS))),
        completion_tokens=tokens,
        finish_reason="length" if cut else "stop",
    )


def _text(name: str, tokens: int, start: int) -> str:
    """Return text of about *tokens* words that says that it is simulated."""
    whole, rest = divmod(tokens, len(_WORDS))
    words = _LOREM[start : start + len(_WORDS)] * whole + _LOREM[start : start + rest]
    return f"[simulated {name}] {' '.join(words)}"
