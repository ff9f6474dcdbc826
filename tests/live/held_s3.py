"""A server of the S3 API that can hold one request back, so that its sender is killed in the midst of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_PATIENCE_S = 200.0


class HeldS3:
    """The server's application; what is held is carried out once let go, even if its sender lives no more."""

    def __init__(self) -> None:
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._aim: Callable[[str, bool], bool] | None = None
        self._reached, self._go = threading.Event(), threading.Event()

    def __call__(self, environ: dict[str, Any], respond: Any) -> Any:
        """Answer a request."""
        if environ["REQUEST_METHOD"] in {"PUT", "POST"}:
            copies = "HTTP_X_AMZ_COPY_SOURCE" in environ
            with self._lock:
                held = self._aim is not None and self._aim(environ["PATH_INFO"], copies)
                if held:
                    self._aim = None
            if held:
                self._reached.set()
                self._go.wait(_PATIENCE_S)
        return self._inner(environ, respond)

    def hold(self, aim: Callable[[str, bool], bool]) -> None:
        """Hold the next write of which *aim* is true, given its path and whether it copies another object."""
        self._reached.clear()
        self._go.clear()
        self._aim = aim

    def wait(self) -> bool:
        """Wait until a request is held; False if none came."""
        return self._reached.wait(_PATIENCE_S)

    def let_go(self) -> None:
        """Carry out what is held."""
        self._go.set()


@contextmanager
def held_s3() -> Iterator[tuple[HeldS3, str]]:
    """Run a server on loopback; yields what holds its requests, and its URL."""
    app = HeldS3()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, name="s3", daemon=True)
    thread.start()
    try:
        yield app, f"http://127.0.0.1:{server.server_port}"
    finally:
        app.let_go()
        server.shutdown()
        thread.join()
