"""Triton over gRPC: the port `agents.ports.Infer`, and the only module that knows how Triton is spoken to.

The generated stubs are called directly: `tritonclient`'s asynchronous client costs 55 us of CPU a call more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from agents.errors import CallTimeout, ConfigError, Unavailable
from agents.ports import Inference

INPUT = "text"
VERSION = "version"
MAX_BATCH = 32
_MATRIX = 2
_LONGEST_DETAIL = 200
_TLS_FILES = {"root_certificates", "private_key", "certificate_chain"}


@dataclass(frozen=True, slots=True)
class TritonTls:
    """TLS to the server; all files are PEM, and without *root_certificates* the system's roots are trusted.

    *private_key* and *certificate_chain* are this client's own, where the server demands them.
    """

    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None

    @staticmethod
    def of(values: Mapping[str, Any] | None) -> TritonTls | None:
        """Return what a settings file says (`ssl: true` and the files), None for no TLS.

        Raises `ConfigError` for a name that is none, or a key without its certificate.
        """
        if values is None:
            return None
        files = {name: Path(str(value)) for name, value in values.items() if name in _TLS_FILES}
        unknown = sorted(set(values) - _TLS_FILES - {"ssl"})
        if unknown:
            known = ", ".join(sorted(_TLS_FILES))
            raise ConfigError(f"Triton's settings: {unknown[0]!r} is not known; use ssl, {known}")
        if str(values.get("ssl", "false")).lower() != "true":
            if files:
                raise ConfigError("Triton's settings: certificates need ssl: true")
            return None
        if ("private_key" in files) != ("certificate_chain" in files):
            raise ConfigError("Triton's settings: private_key and certificate_chain belong together")
        return TritonTls(**files)


@dataclass(frozen=True, slots=True)
class TritonConnection:
    """How the connection is kept; all in seconds.

    A ping is sent after *keepalive_s* of silence during a call, and the connection is given up when it stays
    unanswered for *keepalive_timeout_s*. After a loss, attempts to reconnect are at most *reconnect_s* apart.
    """

    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 5.0
    reconnect_s: float = 1.0

    def options(self) -> list[tuple[str, int]]:
        """The same as gRPC's channel arguments."""
        return [
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            # Servers close connections that ping while idle ("too_many_pings").
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.initial_reconnect_backoff_ms", min(100, round(self.reconnect_s * 1000))),
            ("grpc.min_reconnect_backoff_ms", round(self.reconnect_s * 1000)),
            ("grpc.max_reconnect_backoff_ms", round(self.reconnect_s * 1000)),
        ]


class TritonInfer:
    """The classifiers of one Triton server, as a callable that satisfies `Infer`.

    Connects at the first call and again after the server was away; nothing waits for a server that is down.
    Belongs to the event loop of its first call. A classifier takes `text` and answers one FP32 matrix and,
    where its version is not Triton's own number, a `version`.
    """

    def __init__(
        self, address: str, *, tls: TritonTls | None = None, connection: TritonConnection | None = None
    ) -> None:
        """Prepare for the server at *address* (`host:port`, gRPC); reads the files of *tls*."""
        self._address = address
        self._credentials = None if tls is None else credentials_of(tls)
        self._connection = connection or TritonConnection()
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._closed = False

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Return one row per text and the version that made them, `<classifier>@<version>`.

        Raises:
            CallTimeout: no answer within *timeout_s*.
            Unavailable: no connection, an error from the server, or an answer that is no finite matrix
                of one row per text.
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("no texts to classify")
        chunks = [texts[start : start + MAX_BATCH] for start in range(0, len(texts), MAX_BATCH)]
        if len(chunks) == 1:
            return await self._infer(classifier, texts, timeout_s)
        try:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(self._infer(classifier, chunk, timeout_s)) for chunk in chunks]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return self._joined(classifier, [call.result() for call in calls])

    async def close(self) -> None:
        """Drop the connection; calls in flight and later ones raise `Unavailable`."""
        self._closed = True
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _infer(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        stub = self._connected(classifier)
        try:
            answer = await stub.ModelInfer(_request(classifier, texts), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._translated(classifier, error, timeout_s) from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls as if their tasks had been cancelled.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise self._unavailable(classifier, "the client was closed") from None
            raise
        return self._read(classifier, answer, len(texts))

    def _connected(self, classifier: str) -> Any:
        if self._closed:
            raise self._unavailable(classifier, "the client was closed")
        if self._stub is None:
            options = self._connection.options()
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._address, options)
            else:
                self._channel = grpc.aio.secure_channel(self._address, self._credentials, options)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _read(self, classifier: str, answer: Any, rows: int) -> Inference:
        vectors, version = None, answer.model_version
        if len(answer.outputs) != len(answer.raw_output_contents):
            raise self._unavailable(classifier, "returned outputs without their content")
        for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
            if output.name == VERSION:
                version = _first_string(content)
            elif output.datatype == "FP32":
                vectors = _matrix(output.shape, content, rows)
                if vectors is None:
                    shape = list(output.shape)
                    raise self._unavailable(classifier, f"returned shape {shape} for {rows} texts")
        if vectors is None:
            raise self._unavailable(classifier, "returned no FP32 output")
        if not np.isfinite(vectors).all():
            raise self._unavailable(classifier, "returned NaN")
        return Inference(vectors, f"{classifier}@{version}")

    def _joined(self, classifier: str, parts: Sequence[Inference]) -> Inference:
        versions = sorted({part.version for part in parts})
        if len(versions) > 1:
            raise self._unavailable(classifier, f"answered one call with versions {', '.join(versions)}")
        widths = {part.vectors.shape[1] for part in parts}
        if len(widths) > 1:
            raise self._unavailable(classifier, f"returned rows of {sorted(widths)} numbers in one call")
        return Inference(np.concatenate([part.vectors for part in parts]), versions[0])

    def _translated(self, classifier: str, error: grpc.aio.AioRpcError, timeout_s: float) -> Unavailable:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return CallTimeout(f"{self._named(classifier)} gave no answer within {timeout_s:g} s")
        detail = (error.details() or "no details").partition("\n")[0][:_LONGEST_DETAIL]
        return self._unavailable(classifier, f"{error.code().name}: {detail}")

    def _unavailable(self, classifier: str, reason: str) -> Unavailable:
        return Unavailable(f"{self._named(classifier)}: {reason}")

    def _named(self, classifier: str) -> str:
        return f"classifier {classifier} on Triton at {self._address}"


def credentials_of(tls: TritonTls) -> grpc.ChannelCredentials:
    """Return gRPC's credentials for *tls*; raises `ConfigError` for a file that cannot be read."""
    files = (tls.root_certificates, tls.private_key, tls.certificate_chain)
    try:
        return grpc.ssl_channel_credentials(*(None if path is None else path.read_bytes() for path in files))
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename} for TLS to Triton: {error.strerror}") from None


def _request(classifier: str, texts: Sequence[str]) -> Any:
    """The wire form of a BYTES tensor: each string after its length as four little-endian bytes."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    content = b"".join([len(text).to_bytes(4, "little") + text for text in encoded])
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name=INPUT, datatype="BYTES", shape=[len(texts), 1]
    )
    return service_pb2.ModelInferRequest(model_name=classifier, inputs=[tensor], raw_input_contents=[content])


def _matrix(shape: Sequence[int], content: bytes, rows: int) -> NDArray[np.float32] | None:
    """The output as an array; None unless it is a matrix of *rows* rows that fills *content*."""
    if len(shape) != _MATRIX or shape[0] != rows or shape[1] < 1 or rows * shape[1] * 4 != len(content):
        return None
    return np.frombuffer(content, "<f4").reshape(rows, shape[1])


def _first_string(content: bytes) -> str:
    return content[4 : 4 + int.from_bytes(content[:4], "little")].decode("utf-8", "replace")
