"""A page in headless Chromium, over the DevTools protocol: what it asked for, what it said, how it lies."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
WHY_NOT = "no Chromium on this machine: make browser installs Debian's (as root)"
_START_S = 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """Return where Chromium is, None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


@dataclass
class Page:
    """One tab; `requests` are the addresses it asked for, `complaints` what it logged as an error."""

    socket: aiohttp.ClientWebSocketResponse
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _number: int = 0
    _loaded: bool = False

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call *method* of the protocol and return its result."""
        self._number += 1
        own = self._number
        await self.socket.send_json({"id": own, "method": method, "params": parameters})
        while True:
            message = json.loads((await self.socket.receive(timeout=_START_S)).data)
            if message.get("id") == own:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("text")))
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(str(told["entry"]["text"]))
        elif method == "Page.loadEventFired":
            self._loaded = True

    async def open(self, path: Path, width: int, scheme: str = "light") -> None:
        """Show the file at *path*, *width* pixels wide."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        self._loaded = False
        await self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._event(json.loads((await self.socket.receive(timeout=_START_S)).data))
        await self.evaluate("new Promise(done => setTimeout(() => done(1), 100))")

    async def evaluate(self, script: str) -> Any:
        """Return the value of *script*."""
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def picture(self, to: Path) -> None:
        """Write the whole page to *to* as PNG."""
        height = await self.evaluate("document.documentElement.scrollHeight")
        width = await self.evaluate("window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(_kept, to, base64.b64decode(told["data"]))


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """Run Chromium with its files below *profile*, and end it again."""
    program = chromium()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                target = json.loads(await answer.text())
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), _START_S)


async def _port(told: Path, process: asyncio.subprocess.Process) -> int:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        assert process.returncode is None, f"Chromium ended with {process.returncode}"
        lines = await asyncio.to_thread(_lines, told)
        if lines:
            return int(lines[0])
        await asyncio.sleep(0.05)
    raise TimeoutError("Chromium did not open its port")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _kept(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
