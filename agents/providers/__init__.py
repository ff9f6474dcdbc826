"""Providers: one file per vendor's dialect, writing calls and reading replies without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.failures import Verb
from agents.ports import HttpCall, HttpReply
from agents.registry import PluginConfig, Registry

Outcome = Literal["ok"] | Verb


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply means: ok, or the verb of its `error_code` (`agents.failures`); absent tokens are 0.

    *retry_after_s* is NaN where the provider did not say; *error_code* quotes no content.
    """

    outcome: Outcome
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error_code: str
    retry_after_s: float


class ProviderConfig(PluginConfig):
    """Configuration of a dialect; a subclass is also the dialect itself."""

    def write(
        self, body: bytes, model: str, *, idempotency_key: str, request_id: str, timeout_s: float
    ) -> HttpCall:
        """Return the call that asks *model* (the provider's own name for it) what *body* asks.

        Raises `agents.errors.InvalidRecord` if the body cannot be read.
        """
        raise NotImplementedError

    def read(self, reply: HttpReply) -> Reply:
        """Return what *reply* means."""
        raise NotImplementedError


provider: Registry[ProviderConfig] = Registry("providers")
