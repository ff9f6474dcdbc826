"""The client, the models and the real Triton server together."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from agents.errors import CallTimeout, Unavailable
from agents.ports import Inference
from infra.local.machine import cache_folder
from infra.local.triton import Triton, TritonOptions
from infra.local.triton_env import ensure_triton_env
from streams.clients.triton import TritonInfer

# A first run makes Triton's environment and downloads the weights.
pytestmark = [pytest.mark.live, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
DELAY_MS = 5
PATIENCE_S = 60.0
"""More than anything takes on a loaded machine, and less than what would never end."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, built from the command line; `constant` manages 200 texts a second."""
    out = tmp_path_factory.mktemp("triton") / "repository"
    python = ensure_triton_env(cache_folder()).python
    command = [sys.executable, "-m", "triton_models.build", "--python", str(python)]
    command += ["--out", str(out), "--cache", str(cache_folder()), "--delay-ms", str(DELAY_MS)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(repository: Path) -> AsyncIterator[Triton]:
    """A server with both models."""
    server = Triton(TritonOptions(folder=repository.parent, repository=repository))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def infer(triton: Triton) -> AsyncIterator[TritonInfer]:
    """A client of that server."""
    async with TritonInfer(triton.address) as client:
        yield client


async def answered(infer: TritonInfer, classifier: str = "encoder") -> Inference:
    """Ask until there is an answer."""
    while True:
        try:
            return await infer(classifier, ["are you there?"], 2)
        except Unavailable:
            await asyncio.sleep(0.1)


async def test_similar_sentences_score_higher_than_unrelated_ones(infer: TritonInfer) -> None:
    """The encoder's vectors carry meaning: a paraphrase is nearer than another subject."""
    answer = await infer(
        "encoder",
        [
            "How do I reset my password?",
            "I forgot my login credentials, help me sign in again.",
            "Which planets have rings?",
        ],
        PATIENCE_S,
    )
    cosines = answer.vectors @ answer.vectors[0]

    assert cosines[0] == pytest.approx(1, abs=1e-4)
    assert cosines[1] > 0.5
    assert cosines[2] < 0.3


async def test_a_vector_depends_on_its_text_alone(infer: TritonInfer) -> None:
    """A text gets the same vector, to rounding, whatever is classified together with it."""
    texts = [
        "short",
        "a somewhat longer text about railways",
        "a text about many old railways",
        "x " * 300,
        "",
        "\0 and other controls \x1b",
        "🙂",
    ]
    alone = [(await infer("encoder", [text], PATIENCE_S)).vectors[0] for text in texts]
    together = (await infer("encoder", texts, PATIENCE_S)).vectors
    crowded = await asyncio.gather(*[infer("encoder", [text], PATIENCE_S) for text in texts * 5])

    assert np.allclose(np.stack(alone), together, rtol=0, atol=1e-6)
    assert np.allclose(np.stack(alone * 5), [answer.vectors[0] for answer in crowded], rtol=0, atol=1e-6)


async def test_a_text_of_a_megabyte_is_answered(infer: TritonInfer) -> None:
    """Text beyond the classifier's limit is cut by the classifier."""
    answer = await infer("encoder", ["no end in sight " * 70_000], PATIENCE_S)

    assert np.linalg.norm(answer.vectors[0]) == pytest.approx(1, abs=1e-4)


async def test_every_answer_names_the_version_that_was_built(infer: TritonInfer, triton: Triton) -> None:
    """What a signal will say about its classifier is what the build said."""
    answer = await infer("encoder", ["a"], PATIENCE_S)
    config = (triton.options.repository / "encoder" / "config.pbtxt").read_text(encoding="utf-8")
    name, _, version = answer.version.partition("@")

    assert name == "encoder"
    assert f'key: "version" value {{ string_value: "{version}" }}' in config


async def test_the_constant_classifier_is_as_slow_as_asked(infer: TritonInfer) -> None:
    """100 texts at 5 ms take half a second or more, whether they come one by one or not."""
    clock = asyncio.get_running_loop().time
    await answered(infer, "constant")
    started = clock()
    parts = await asyncio.gather(
        infer("constant", [f"text {number}" for number in range(50)], PATIENCE_S),
        *[infer("constant", [f"text {number}"], PATIENCE_S) for number in range(50)],
    )
    elapsed = clock() - started

    assert 100 * DELAY_MS / 1000 <= elapsed < 20
    assert np.array_equal(parts[0].vectors, np.concatenate([part.vectors for part in parts[1:]]))
    assert np.linalg.norm(parts[0].vectors, axis=1) == pytest.approx(1, abs=1e-4)


async def test_an_unknown_classifier_is_unavailable(infer: TritonInfer) -> None:
    """A classifier that the server does not have is named in the error."""
    with pytest.raises(Unavailable, match="classifier decoder on Triton"):
        await infer("decoder", ["a"], PATIENCE_S)


async def test_a_server_that_hangs_is_a_call_timeout(infer: TritonInfer, triton: Triton) -> None:
    """A stopped process answers nothing; the call ends at its timeout and works again afterwards."""
    assert triton.process is not None
    os.kill(triton.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(CallTimeout):
            await infer("encoder", ["a"], 0.5)
    finally:
        os.kill(triton.process.pid, signal.SIGCONT)

    async with asyncio.timeout(PATIENCE_S):
        assert (await answered(infer)).vectors.shape == (1, 384)


async def test_a_killed_server_is_unavailable_until_it_is_back(infer: TritonInfer, triton: Triton) -> None:
    """SIGKILL ends calls in flight within their timeout; the same client works after a restart."""
    clock = asyncio.get_running_loop().time
    before = await answered(infer)
    flying = [asyncio.create_task(infer("constant", ["a"] * 32, 5)) for _ in range(20)]
    await asyncio.sleep(0.2)
    killed = clock()
    await triton.kill()
    outcomes = await asyncio.gather(*flying, return_exceptions=True)
    with pytest.raises(Unavailable):
        await infer("encoder", ["a"], 5)
    noticed = clock() - killed

    await triton.start()
    async with asyncio.timeout(PATIENCE_S):
        after = await answered(infer)

    failed = [outcome for outcome in outcomes if not isinstance(outcome, Inference)]
    assert failed
    assert all(isinstance(outcome, Unavailable) for outcome in failed)
    assert noticed < PATIENCE_S
    assert after.version == before.version
    assert np.array_equal(after.vectors, before.vectors)
