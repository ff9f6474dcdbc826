"""Whether a Triton server answers, and its models are what our client sends to and reads from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from streams.clients.triton import INPUT, TritonConnection, TritonTls, credentials_of

_DETAIL = 160


async def models(
    address: str, names: Sequence[str], *, tls: TritonTls | None, timeout_s: float
) -> Mapping[str, str | None]:
    """Return name -> why the model cannot be used, None if it can."""
    async with _connected(address, tls) as stub:
        return {name: await _wrong(stub, name, timeout_s) for name in names}


async def alive(address: str, *, tls: TritonTls | None, timeout_s: float) -> str | None:
    """Return why the server cannot be asked, None if it can; raises `ConfigError` for files of *tls*."""
    async with _connected(address, tls) as stub:
        try:
            found = await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return _told(error)
    return None if found.live else "the server says that it is not live"


@asynccontextmanager
async def _connected(address: str, tls: TritonTls | None) -> AsyncIterator[Any]:
    options = TritonConnection().options()
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options)
    else:
        channel = grpc.aio.secure_channel(address, credentials_of(tls), options)
    async with channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


async def _wrong(stub: Any, name: str, timeout_s: float) -> str | None:
    try:
        ready = await stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=timeout_s)
        if not ready.ready:
            return "the model is not ready"
        told = await stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return _told(error)
    inputs = {(one.name, one.datatype) for one in told.inputs}
    if inputs != {(INPUT, "BYTES")}:
        return f"it takes {sorted(inputs)}, not one input {INPUT!r} of BYTES"
    matrices = [one.name for one in told.outputs if one.datatype == "FP32"]
    if len(matrices) != 1:
        return f"it has {len(matrices)} outputs of FP32 ({', '.join(matrices) or 'none'}), not one"
    return None


def _told(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {(error.details() or '')[:_DETAIL]}"
