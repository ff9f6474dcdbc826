"""The S3 API is a claim store: the same suite, against a local server that speaks it."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from agents.errors import Unavailable
from streams.clients.claims import ClaimStore, store_at
from tests.suites.claim_suite import ClaimSuite, reference

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server of the S3 API."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> ClaimStore:
    """A prefix of a new bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    bucket = f"bucket{next(_NUMBERS)}"
    # The scheme is that of the server of this test.
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")):  # noqa: S310
        return store_at(f"s3://{bucket}/some/prefix?endpoint={endpoint}&region=us-east-1")


class TestS3Claims(ClaimSuite):
    """The suite over HTTP."""


async def test_a_bucket_that_does_not_exist_is_an_outage(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the store, and no credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    store = store_at(f"s3://nowhere/prefix?endpoint={endpoint}")
    with pytest.raises(Unavailable, match="claim store s3://nowhere/prefix failed") as caught:
        await store.put(reference(), b"x")

    assert "test-secret" not in str(caught.value)
