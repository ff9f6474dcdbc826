"""A Triton for commands that observe logged requests: known to answer beforehand, and not pressed for time.

A worker's classifier may come back, so a worker waits; a person at a command line wants to know at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents.errors import ConfigError, Unavailable
from agents.ports import Infer, Inference
from streams.clients.triton import TritonInfer, TritonTls
from streams.clients.triton_check import alive

_LOOK_S = 10.0
_LEAST_S = 60.0
"""Seconds for one inference at least: a policy's `infer_s` says how long a live decision waits."""


@asynccontextmanager
async def answering(address: str, security: Mapping[str, Any] | None = None) -> AsyncIterator[Infer]:
    """Connect to the classifiers at *address* (`host:port`, gRPC); *security* is what a settings file says.

    Raises `ConfigError` for an address or settings that cannot be used, `Unavailable` if it does not answer.
    """
    if "://" in address or not address.rpartition(":")[0]:
        raise ConfigError(
            f"{address!r} is no address of a Triton: give its gRPC as host:port, without a scheme"
        )
    tls = TritonTls.of(security)
    why = await alive(address, tls=tls, timeout_s=_LOOK_S)
    if why is not None:
        raise Unavailable(
            f"Triton at {address} does not answer ({why}): check that it runs, that this is its gRPC port, "
            "and SIGNALBOX_TRITON_SETTINGS if it wants TLS"
        )
    async with TritonInfer(address, tls=tls) as infer:

        async def unhurried(classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
            return await infer(classifier, texts, max(timeout_s, _LEAST_S))

        yield unhurried
