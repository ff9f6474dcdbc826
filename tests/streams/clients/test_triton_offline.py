"""Commands that read logs know before they begin whether Triton answers, and give it time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from agents.errors import ConfigError, Unavailable
from streams.clients.triton_offline import answering
from tests.streams.clients.fake_triton import DIMENSIONS, reply, serving
from tests.streams.clients.test_triton import certify


async def slowly(texts: list[str], context: grpc.aio.ServicerContext) -> Any:
    """Answer after what a live decision may wait."""
    del context
    await asyncio.sleep(0.3)
    return reply(np.ones((len(texts), DIMENSIONS), np.float32))


async def test_a_live_policy_s_patience_does_not_bound_an_inference() -> None:
    """Nobody waits for a logged request: what takes longer than `infer_s` is answered all the same."""
    async with serving(slowly) as (address, _), answering(address) as infer:
        found = await infer("encoder", ["a", "b"], 0.05)

    assert found.vectors.shape == (2, DIMENSIONS)


async def test_a_settings_file_leads_to_a_server_with_tls(tmp_path: Path) -> None:
    """The commands go by the same settings as workers do; in the clear, such a server does not answer."""
    key, certificate = certify(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    settings = {"ssl": True, "root_certificates": str(certificate)}
    async with serving(credentials=credentials) as (address, _):
        async with answering(address, settings) as infer:
            found = await infer("encoder", ["four"], 5)
        with pytest.raises(Unavailable, match="SIGNALBOX_TRITON_SETTINGS"):
            async with answering(address):
                pass

    assert found.vectors[0, 0] == 4


async def test_a_server_that_is_down_is_told_before_anything_is_computed() -> None:
    """The error names the address and what to look at."""
    with pytest.raises(
        Unavailable, match=r"Triton at 127\.0\.0\.1:1 does not answer \(UNAVAILABLE.*gRPC port"
    ):
        async with answering("127.0.0.1:1"):
            pass


@pytest.mark.parametrize("address", ["http://127.0.0.1:8001", "127.0.0.1", ":8001"])
async def test_what_is_no_host_and_port_is_refused(address: str) -> None:
    """A URL would otherwise be a host that nobody knows."""
    with pytest.raises(ConfigError, match="host:port"):
        async with answering(address):
            pass
