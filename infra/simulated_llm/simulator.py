"""A call understood and its outcome settled: what the server and the in-process client share.

Does no I/O and reads no clock: holds the counts, the buckets and the forced modes between calls.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from infra.simulated_llm.bucket import Bucket
from infra.simulated_llm.calls import CallRecord
from infra.simulated_llm.model import HANG, Outcome, draw, failed, rate_limited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.simulated_llm.profile import ModelProfile, Profile

_KEYS_REMEMBERED = 200_000


class Force(BaseModel):
    """An order to behave in one way until told otherwise; ``profile`` lifts the order.

    ``ok`` answers every call, at the drawn speed. *status*, *code* and *retry_after_s* refine
    ``error`` and ``rate_limit``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str | None = None
    mode: Literal["profile", "ok", "hang", "error", "rate_limit"]
    status: Annotated[int, Field(ge=400, le=599)] = 500
    code: str = ""
    retry_after_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call: who asked, in which form the answer is due, and how it ends."""

    provider: str
    model: str
    idempotency_key: str
    request_id: str
    created: float
    prompt_tokens: int
    outcome: Outcome
    stream: bool = False
    include_usage: bool = False

    def record(self, started: float, ended: float, status: int) -> CallRecord:
        """Return the line for the log of calls; *status* says how the call really ended."""
        return CallRecord(
            time=started,
            ended=ended,
            provider=self.provider,
            model=self.model,
            idempotency_key=self.idempotency_key,
            request_id=self.request_id,
            status=status,
        )


class Simulator:
    """Every provider of one profile under one seed."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self._seed = seed
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._forced: dict[tuple[str, str | None], Force] = {}

    def force(self, order: Force) -> None:
        """Obey *order* from the next call on.

        Raises:
            LookupError: the profile has no such provider or model.
        """
        known = self.profile.providers.get(order.provider)
        if known is None or (order.model is not None and order.model not in known.models):
            raise LookupError(f"the profile has no {order.provider}/{order.model or '*'}")
        if order.mode == "profile" and order.model is None:
            self._forced = {place: old for place, old in self._forced.items() if place[0] != order.provider}
        elif order.mode == "profile":
            self._forced.pop((order.provider, order.model), None)
        else:
            self._forced[order.provider, order.model] = order

    def begin(self, provider: str, body: bytes, headers: Mapping[str, str], now: float) -> Exchange:
        """Return the exchange for a chat completions call; names in *headers* are lower-case.

        *provider* may be empty: the first provider that serves the model is taken. A call that
        makes no sense comes back as an exchange whose outcome is the refusal.
        """
        asked = _parse(body)
        model = asked.get("model") if isinstance(asked, dict) else None
        model = model if isinstance(model, str) else ""
        provider = provider or self.profile.provider_of(model) or ""
        sent_key = _printable(headers.get("idempotency-key", ""))
        key = sent_key or sha256(body).hexdigest()
        prompt_tokens = max(len(body) // 4, 1)
        refusal = self._refusal(provider, model, asked, prompt_tokens)
        if refusal is None:
            outcome = self._outcome(provider, model, key, _max_tokens(asked), now)
        else:
            outcome = failed(sha256(key.encode()).hexdigest()[:16], *refusal)
        options = asked.get("stream_options") if isinstance(asked, dict) else None
        return Exchange(
            provider=provider,
            model=model,
            idempotency_key=sent_key,
            request_id=_printable(headers.get("x-request-id", "")),
            created=now,
            prompt_tokens=prompt_tokens,
            outcome=outcome,
            stream=isinstance(asked, dict) and asked.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def _refusal(
        self, provider: str, model: str, asked: object, prompt_tokens: int
    ) -> tuple[int, str, str] | None:
        """Return (status, code, message) if the call cannot be served at all, else None."""
        if not isinstance(asked, dict):
            return 400, "invalid_json", "The body is not a JSON object."
        if not model or not isinstance(asked.get("messages"), list) or not asked["messages"]:
            return 400, "invalid_request_error", "The body needs 'model' and a list 'messages'."
        known = self.profile.find(provider, model)
        if known is None:
            return 404, "model_not_found", "The simulated provider has no such model."
        limit = known.context_tokens
        if limit is not None and prompt_tokens > limit:
            message = f"This model's maximum context length is {limit} tokens; got {prompt_tokens}."
            return 400, "context_length_exceeded", message
        return None

    def _outcome(self, provider: str, model: str, key: str, max_tokens: int | None, now: float) -> Outcome:
        known = self.profile.providers[provider].models[model]
        nth = self._count(provider, model, key)
        order = self._forced.get((provider, model)) or self._forced.get((provider, None))
        drawn = draw(
            self.profile,
            self._seed,
            provider,
            model,
            key,
            nth,
            max_tokens=max_tokens,
            spared=order is not None,
        )
        if order is not None:
            return _obey(order, known, drawn)
        wait_s = self._wait(provider, model, known, now)
        if wait_s > 0.0:
            return rate_limited(drawn.fingerprint, max(wait_s, known.retry_after_s))
        return drawn

    def _count(self, provider: str, model: str, key: str) -> int:
        """Return how many calls with this key came before, and count this one."""
        place = (provider, model, key)
        nth = self._seen[place]
        self._seen[place] = nth + 1
        if len(self._seen) > _KEYS_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return nth

    def _wait(self, provider: str, model: str, known: ModelProfile, now: float) -> float:
        if known.bucket is None:
            return 0.0
        bucket = self._buckets.get((provider, model))
        if bucket is None:
            bucket = self._buckets[provider, model] = Bucket(known.bucket.rps, known.bucket.burst)
        return bucket.take(now)


def _obey(order: Force, known: ModelProfile, drawn: Outcome) -> Outcome:
    """Return what *order* makes of a call that would have been answered with *drawn*."""
    if order.mode == "hang":
        return Outcome(HANG, drawn.fingerprint)
    if order.mode == "error":
        return failed(drawn.fingerprint, order.status, order.code)
    if order.mode == "rate_limit":
        wait_s = known.retry_after_s if order.retry_after_s is None else order.retry_after_s
        return rate_limited(drawn.fingerprint, wait_s)
    return drawn


def _parse(body: bytes) -> Any:  # noqa: ANN401 - a foreign body is any JSON until it is checked
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _printable(header: str) -> str:
    """Return *header* with what is not UTF-8 replaced: HTTP lets any byte into a header."""
    return header.encode(errors="replace").decode()


def _max_tokens(asked: Mapping[str, Any]) -> int | None:
    """Return the smaller of the two limits that the dialect knows, if any."""
    limits = [asked.get("max_tokens"), asked.get("max_completion_tokens")]
    return min((n for n in limits if isinstance(n, int) and n > 0), default=None)
