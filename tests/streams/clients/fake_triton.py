"""A Triton server in this process: real gRPC on loopback, answers from a function."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

Answer = Callable[[list[str], grpc.aio.ServicerContext], Awaitable[Any]]

DIMENSIONS = 4


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Hands the texts of each call to *answer* and remembers them."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """Answer one call."""
        texts = strings(request.raw_input_contents[0])
        self.calls.append(texts)
        return await self.answer(texts, context)

    async def ServerLive(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """Say that it lives."""
        del request, context
        return service_pb2.ServerLiveResponse(live=True)


def strings(content: bytes) -> list[str]:
    """Read a BYTES tensor."""
    texts = []
    while content:
        size = int.from_bytes(content[:4], "little")
        texts.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return texts


def reply(rows: np.ndarray[Any, Any], *, version: str | None = "abc", shape: list[int] | None = None) -> Any:
    """Build an answer with *rows* as its FP32 output, and a version for each unless it is None."""
    tensor = service_pb2.ModelInferResponse.InferOutputTensor
    outputs = [tensor(name="embedding", datatype="FP32", shape=shape or list(rows.shape))]
    contents = [rows.astype("<f4").tobytes()]
    if version is not None:
        outputs.append(tensor(name="version", datatype="BYTES", shape=[len(rows), 1]))
        contents.append((len(version).to_bytes(4, "little") + version.encode()) * len(rows))
    return service_pb2.ModelInferResponse(
        model_name="encoder", model_version="1", outputs=outputs, raw_output_contents=contents
    )


async def lengths(texts: list[str], _context: grpc.aio.ServicerContext) -> Any:
    """Answer rows that hold the length of their text."""
    return reply(np.array([[len(text)] * DIMENSIONS for text in texts], np.float32))


@asynccontextmanager
async def serving(
    answer: Answer = lengths, *, port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[str, Servicer]]:
    """Serve on loopback; yields the address and the servicer, and stops at once at the end."""
    # Without this a second server could share the port of the first.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = Servicer(answer)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    address = f"localhost:{port}"
    if credentials is None:
        bound = server.add_insecure_port(address)
    else:
        bound = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield f"localhost:{bound}", servicer
    finally:
        await server.stop(None)
