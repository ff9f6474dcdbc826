"""Where archives are tested: a folder, and a bucket on a local server that speaks the S3 API."""

from __future__ import annotations

import itertools
import logging
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

_NUMBERS = itertools.count()
NewPlace = Callable[[], str]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a server of the S3 API, host and port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield f"{host}:{port}"
    server.stop()


def bucket(address: str) -> str:
    """Return the URI of a folder in a new bucket."""
    name = f"archive{next(_NUMBERS)}"
    url = f"http://{address}/{name}"
    # The scheme is that of the server of this test.
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT")):
        return f"s3://{name}/some/folder?endpoint=http://{address}"


@pytest.fixture(params=["disk", "s3"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> NewPlace:
    """Return what gives a new place for an archive at each call."""
    if request.param == "s3":
        address: str = request.getfixturevalue("s3")
        return lambda: bucket(address)
    return lambda: str(tmp_path / str(next(_NUMBERS)))
