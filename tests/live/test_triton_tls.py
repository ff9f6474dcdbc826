"""Triton over TLS, with and without a client certificate: the client gets in, or says why it does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from agents.errors import Unavailable
from infra.local.external import External, ExternalTriton
from infra.local.triton import Triton, TritonOptions
from streams.clients.triton import TritonInfer, TritonTls
from tests.certificates import Authority

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("triton_environment"),
]

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "vector" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
MODEL = """
import numpy
import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        rows = [len(backend.get_input_tensor_by_name(r, "text").as_numpy()) for r in requests]
        return [
            backend.InferenceResponse([backend.Tensor("vector", numpy.ones((n, 2), numpy.float32))])
            for n in rows
        ]
"""


def repository(folder: Path) -> Path:
    """Write a repository of one model that answers ones."""
    version = folder / "repository" / "ones" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (version / "model.py").write_text(MODEL, encoding="utf-8")
    return folder / "repository"


@asynccontextmanager
async def server(folder: Path, *, mutual: bool) -> AsyncIterator[tuple[str, Authority]]:
    """Run a server whose gRPC speaks TLS."""
    authority = Authority(folder / "certificates")
    issued = authority.issue("triton", "127.0.0.1")
    arguments = [
        f"--grpc-use-ssl{'-mutual' if mutual else ''}=true",
        f"--grpc-server-cert={issued.certificate}",
        f"--grpc-server-key={issued.key}",
        f"--grpc-root-cert={authority.certificate}",
    ]
    triton = Triton(
        TritonOptions(
            folder=folder / "triton",
            repository=repository(folder),
            models=("ones",),
            arguments=tuple(arguments),
        )
    )
    try:
        yield await triton.start(), authority
    finally:
        await triton.stop()


@pytest.mark.parametrize("mutual", [False, True], ids=["server", "mutual"])
async def test_a_classifier_answers_over_tls(tmp_path: Path, *, mutual: bool) -> None:
    """The settings file is all it takes; without the CA, or the client's certificate, nothing answers."""
    async with server(tmp_path, mutual=mutual) as (address, authority):
        issued = authority.issue("worker")
        values = {"ssl": True, "root_certificates": str(authority.certificate)}
        if mutual:
            values |= {"private_key": str(issued.key), "certificate_chain": str(issued.certificate)}
        async with TritonInfer(address, tls=TritonTls.of(values)) as infer:
            answer = await infer("ones", ["a", "b"], 10.0)
        file = tmp_path / "triton.yaml"
        file.write_text(json.dumps(values))
        healthy = await ExternalTriton(External(address, file), ("ones",)).health()
        stranger = Authority(tmp_path / "strangers", "stranger").certificate
        refused = [None, TritonTls(stranger)] + ([TritonTls(authority.certificate)] if mutual else [])
        for tls in refused:
            async with TritonInfer(address, tls=tls) as infer:
                with pytest.raises(Unavailable):
                    await infer("ones", ["a"], 3.0)

    assert np.array_equal(answer.vectors, np.ones((2, 2)))
    assert healthy
