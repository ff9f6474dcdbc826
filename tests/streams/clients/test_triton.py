"""The Triton client against a server of its protocol in this process."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from agents.errors import CallTimeout, Unavailable
from agents.ports import Infer
from streams.clients.triton import MAX_BATCH, TritonConnection, TritonInfer, TritonTls
from tests.streams.clients.fake_triton import DIMENSIONS, Answer, lengths, reply, serving

NOBODY = "localhost:1"


def always(answer: Any) -> Answer:
    """Answer every call alike."""

    async def given(_texts: list[str], _context: Any) -> Any:
        return answer

    return given


async def test_answers_one_row_per_text_in_order_and_names_the_version() -> None:
    """Rows come back in the order of the texts, with the classifier's name and version."""
    async with serving() as (address, _), TritonInfer(address) as infer:
        answer = await infer("encoder", ["a", "bb", "ccc"], 5)

    assert answer.vectors.shape == (3, DIMENSIONS)
    assert answer.vectors.dtype == np.float32
    assert answer.vectors[:, 0].tolist() == [1, 2, 3]
    assert answer.version == "encoder@abc"


async def test_satisfies_the_port() -> None:
    """The client is what the agents ask for."""
    infer: Infer = TritonInfer(NOBODY)

    assert callable(infer)


async def test_splits_what_exceeds_a_batch_and_keeps_the_order() -> None:
    """More texts than a batch holds become several calls and one answer."""
    texts = ["x" * (1 + index % 7) for index in range(2 * MAX_BATCH + 1)]

    async with serving() as (address, triton), TritonInfer(address) as infer:
        answer = await infer("encoder", texts, 5)

    assert sorted(len(call) for call in triton.calls) == [1, MAX_BATCH, MAX_BATCH]
    assert answer.vectors[:, 0].tolist() == [len(text) for text in texts]


async def test_a_lone_surrogate_does_not_stop_a_text() -> None:
    """Text that has no UTF-8 form is sent with a replacement."""
    async with serving() as (address, triton), TritonInfer(address) as infer:
        await infer("encoder", ["broken \ud800", "日本語"], 5)

    assert triton.calls == [["broken ?", "日本語"]]


async def test_no_texts_are_a_mistake_of_the_caller() -> None:
    """An empty call is refused before anything is sent."""
    with pytest.raises(ValueError, match="no texts"):
        await TritonInfer(NOBODY)("encoder", [], 1)


async def test_a_server_that_is_down_is_unavailable_at_once() -> None:
    """A refused connection does not use up the timeout."""
    async with TritonInfer(NOBODY) as infer, asyncio.timeout(5):
        with pytest.raises(Unavailable, match=r"classifier encoder on Triton at localhost:1: UNAVAILABLE"):
            await infer("encoder", ["a"], 60)


async def test_a_silent_server_is_a_call_timeout() -> None:
    """A call without an answer ends at its timeout and says which."""

    async def never(_texts: list[str], _context: Any) -> Any:
        await asyncio.Event().wait()

    async with serving(never) as (address, _), TritonInfer(address) as infer, asyncio.timeout(5):
        with pytest.raises(CallTimeout, match=r"gave no answer within 0\.2 s"):
            await infer("encoder", ["a"], 0.2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(np.full((2, 3), np.nan)), "returned NaN"),
        (reply(np.array([[1, 2], [1, np.inf]])), "returned NaN"),
        (reply(np.ones((3, 3))), r"returned shape \[3, 3\] for 2 texts"),
        (reply(np.ones(2)), r"returned shape \[2\] for 2 texts"),
        (reply(np.ones((2, 3)), shape=[2, 4]), r"returned shape \[2, 4\] for 2 texts"),
        (reply(np.ones((2, 0))), r"returned shape \[2, 0\] for 2 texts"),
    ],
)
async def test_an_answer_that_is_no_finite_matrix_is_unavailable(answer: Any, reason: str) -> None:
    """NaN, infinity and wrong shapes never reach an agent."""
    async with serving(always(answer)) as (address, _), TritonInfer(address) as infer:
        with pytest.raises(Unavailable, match=reason):
            await infer("encoder", ["a", "b"], 5)


async def test_an_answer_without_a_matrix_is_unavailable() -> None:
    """A model of another kind is named, not misread."""
    answer = reply(np.ones((1, 2)))
    del answer.outputs[0], answer.raw_output_contents[0]

    async with serving(always(answer)) as (address, _), TritonInfer(address) as infer:
        with pytest.raises(Unavailable, match="returned no FP32 output"):
            await infer("encoder", ["a"], 5)


async def test_an_error_of_the_server_is_unavailable_with_its_first_line() -> None:
    """What Triton says is passed on, but not its stack traces."""

    async def unknown(_texts: list[str], context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model\n  at line 5")

    async with serving(unknown) as (address, _), TritonInfer(address) as infer:
        with pytest.raises(Unavailable, match=r"NOT_FOUND: unknown model$"):
            await infer("encoder", ["a"], 5)


async def test_without_a_version_output_the_version_is_tritons_own() -> None:
    """A model that states no version is known by its version folder."""
    plain = always(reply(np.ones((1, 2)), version=None))

    async with serving(plain) as (address, _), TritonInfer(address) as infer:
        answer = await infer("encoder", ["a"], 5)

    assert answer.version == "encoder@1"


async def test_two_versions_in_one_answer_are_unavailable() -> None:
    """While a classifier is being replaced, no answer mixes the old with the new."""
    versions = iter(["old", "new"])

    async def replaced(texts: list[str], _context: Any) -> Any:
        return reply(np.ones((len(texts), 2)), version=next(versions))

    async with serving(replaced) as (address, _), TritonInfer(address) as infer:
        with pytest.raises(Unavailable, match="encoder@new, encoder@old"):
            await infer("encoder", ["a"] * (MAX_BATCH + 1), 5)


async def test_one_failed_part_fails_the_call() -> None:
    """A split call raises the error of its part, not a group of errors."""

    async def flaky(texts: list[str], context: Any) -> Any:
        if len(texts) == 1:
            await context.abort(grpc.StatusCode.INTERNAL, "out of memory")
        return reply(np.ones((len(texts), 2)))

    async with serving(flaky) as (address, _), TritonInfer(address) as infer:
        with pytest.raises(Unavailable, match="INTERNAL: out of memory"):
            await infer("encoder", ["a"] * (MAX_BATCH + 1), 5)


async def test_finds_a_server_that_came_back() -> None:
    """After an outage calls work again without a new client."""
    async with serving() as (address, _):
        infer = TritonInfer(address, connection=TritonConnection(reconnect_s=0.1))
        await infer("encoder", ["a"], 5)
    with pytest.raises(Unavailable):
        await infer("encoder", ["a"], 5)

    async with serving(port=int(address.rpartition(":")[2])), asyncio.timeout(5):
        answer = await eventually(infer)

    assert answer.vectors.shape == (1, DIMENSIONS)
    await infer.close()


async def eventually(infer: TritonInfer) -> Any:
    """Ask until there is an answer."""
    while True:
        try:
            return await infer("encoder", ["a"], 1)
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_closing_ends_calls_in_flight() -> None:
    """A call that its client abandons is unavailable, and its task is not cancelled."""
    asked = asyncio.Event()

    async def never(_texts: list[str], _context: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with serving(never) as (address, _), asyncio.timeout(5):
        infer = TritonInfer(address)
        call = asyncio.create_task(infer("encoder", ["a"], 60))
        await asked.wait()
        await infer.close()
        with pytest.raises(Unavailable, match="the client was closed"):
            await call
        with pytest.raises(Unavailable, match="the client was closed"):
            await infer("encoder", ["a"], 60)


async def test_a_cancelled_call_stays_cancelled() -> None:
    """Cancellation is the caller's and is not turned into an error."""
    asked = asyncio.Event()

    async def never(_texts: list[str], _context: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with serving(never) as (address, _), TritonInfer(address) as infer, asyncio.timeout(5):
        call = asyncio.create_task(infer("encoder", ["a"], 60))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


def certify(folder: Path) -> tuple[Path, Path]:
    """Make a key and a certificate for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate to test TLS with (apt install openssl)")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


async def test_speaks_tls_and_shows_its_own_certificate(tmp_path: Path) -> None:
    """With a root, a key and a chain the client passes a server that demands a client certificate."""
    key, certificate = certify(tmp_path)
    pair = [(key.read_bytes(), certificate.read_bytes())]
    demanding = grpc.ssl_server_credentials(pair, certificate.read_bytes(), require_client_auth=True)
    mutual = TritonTls(root_certificates=certificate, private_key=key, certificate_chain=certificate)

    async with serving(lengths, credentials=demanding) as (address, _):
        async with TritonInfer(address, tls=mutual) as infer:
            answer = await infer("encoder", ["four"], 5)
        async with TritonInfer(address, tls=TritonTls(root_certificates=certificate)) as stranger:
            with pytest.raises(Unavailable):
                await stranger("encoder", ["four"], 5)

    assert answer.vectors[0, 0] == 4
