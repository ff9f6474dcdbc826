"""The embedded Triton: the real server, its own environment, a Python-backend model."""

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc

from infra.local.errors import StackError, StartFailed
from infra.local.external import External, ExternalTriton
from infra.local.identity import marked
from infra.local.triton import SHARED_MEMORY, Triton, TritonOptions, region_prefix

pytestmark = [pytest.mark.live, pytest.mark.timeout(420), pytest.mark.usefixtures("triton_environment")]

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "ECHO" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
MODEL = """
import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        return [
            backend.InferenceResponse(
                [backend.Tensor("ECHO", backend.get_input_tensor_by_name(request, "TEXT").as_numpy())]
            )
            for request in requests
        ]
"""


def repository(folder: Path, code: str = MODEL) -> Path:
    """Write a repository of one model that gives back its text."""
    version = folder / "repository" / "echo" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (version / "model.py").write_text(code, encoding="utf-8")
    return folder / "repository"


async def echo(address: str, text: str) -> str:
    """Send one text through the model."""
    async with triton_grpc.InferenceServerClient(address) as client:
        given = triton_grpc.InferInput("TEXT", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
        answer = await client.infer("echo", [given])
        return bytes(answer.as_numpy("ECHO")[0][0]).decode()


async def test_a_model_answers_before_and_after_a_sigkill_and_nothing_is_left(tmp_path: Path) -> None:
    """The server comes back at its address; stopping it leaves no process and no shared memory."""
    triton = Triton(
        TritonOptions(folder=tmp_path / "triton", repository=repository(tmp_path), models=("echo",))
    )
    try:
        address = await triton.start()
        process = triton.process
        assert process is not None
        assert await echo(address, "grüß dich") == "grüß dich"
        assert await ExternalTriton(External(address), ("echo",)).health()
        assert not await ExternalTriton(External(address), ("missing",)).health()
        await triton.kill()
        assert not await triton.health()

        assert await triton.start() == address
        assert await echo(address, "again") == "again"
    finally:
        await triton.stop()
    assert list(marked(process.marker)) == []
    assert list(SHARED_MEMORY.glob(f"{region_prefix(process.marker)}*")) == []


async def test_a_model_that_cannot_be_loaded_is_an_error_with_triton_s_reason(tmp_path: Path) -> None:
    """The user reads the import that failed, not only that the server ended."""
    broken = repository(tmp_path, "import nothing_of_that_name")
    triton = Triton(TritonOptions(folder=tmp_path / "triton", repository=broken, models=("echo",)))

    with pytest.raises(StartFailed, match="No module named 'nothing_of_that_name'"):
        await triton.start()


async def test_a_model_that_was_not_built_is_named(tmp_path: Path) -> None:
    """The user reads which folder is missing and how to make it."""
    triton = Triton(TritonOptions(folder=tmp_path / "triton", repository=tmp_path, models=("encoder",)))

    with pytest.raises(StackError, match=r"encoder does not exist: build the models"):
        await triton.start()
