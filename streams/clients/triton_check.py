"""Whether a Triton server's models are what our client sends to and reads from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from streams.clients.triton import INPUT, TritonConnection, TritonTls, credentials_of

_DETAIL = 160


async def models(
    address: str, names: Sequence[str], *, tls: TritonTls | None, timeout_s: float
) -> Mapping[str, str | None]:
    """Return name -> why the model cannot be used, None if it can."""
    options = TritonConnection().options()
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options)
    else:
        channel = grpc.aio.secure_channel(address, credentials_of(tls), options)
    async with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return {name: await _wrong(stub, name, timeout_s) for name in names}


async def _wrong(stub: Any, name: str, timeout_s: float) -> str | None:
    try:
        ready = await stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=timeout_s)
        if not ready.ready:
            return "the model is not ready"
        told = await stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {(error.details() or '')[:_DETAIL]}"
    inputs = {(one.name, one.datatype) for one in told.inputs}
    if inputs != {(INPUT, "BYTES")}:
        return f"it takes {sorted(inputs)}, not one input {INPUT!r} of BYTES"
    matrices = [one.name for one in told.outputs if one.datatype == "FP32"]
    if len(matrices) != 1:
        return f"it has {len(matrices)} outputs of FP32 ({', '.join(matrices) or 'none'}), not one"
    return None
