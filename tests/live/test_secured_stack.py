"""The whole product on a secured broker: all log in by one file, and no output shows a secret."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT
from tests.live.secured import Secured, secured_broker

pytestmark = [pytest.mark.live, pytest.mark.timeout(600), pytest.mark.usefixtures("kafka_jars")]

POLICY = "infra/policies/quickstart.yaml"
LARGE = 2_000_000


class Shell:
    """Runs commands, and remembers all that they said."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.said = ""
        self._where = ("--dir", str(folder / "stack"))
        self._environment = {**os.environ, **environment}

    async def call(self, *arguments: str) -> tuple[int, dict[str, object]]:
        """Return the exit code and the JSON object of `signalbox`."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "signalbox", *arguments, *self._where, "--json"],
            cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        self.said += done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else {}


def line(name: str, text: str) -> str:
    """Return a batch line."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})


def written(folder: Path) -> str:
    """Return all that the stack wrote: logs, state, settings; not the broker's binary data."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def shown() -> str:
    """Return the arguments of every process."""
    found = ""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += path.read_text(errors="replace")
    return found


async def test_a_batch_goes_through_a_secured_broker_and_no_secret_shows(tmp_path: Path) -> None:
    """Workers, submit, run-status, status and claims log in as the file says; a body of 2 MB passes too.

    Passwords, keys and the prompt are in no output, log, state file or list of processes.
    """
    provider_key = secrets.token_urlsafe(24)
    (tmp_path / "north.key").write_text(provider_key)
    environment = {"SIGNALBOX_KEY_FILES": json.dumps({"north": str(tmp_path / "north.key")})}
    shell = Shell(tmp_path, environment)
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    marker = "canary" + secrets.token_hex(8)
    file.write_text("\n".join([line("small", f"hello {marker}"), line("large", marker + "x" * LARGE)]))
    async with secured_broker(tmp_path / "broker", "SASL_SSL", ("admin",)) as broker:
        settings = str(broker.settings_file())
        up = (
            "up",
            "--workers",
            "--policy",
            POLICY,
            "--broker",
            broker.address,
            "--broker-settings",
            settings,
        )
        code, _ = await shell.call(*up)
        try:
            assert code == 0, shell.said
            code, report = await shell.call(
                "submit", str(file), "--wait", "--out", str(out), "--run", "secured"
            )
            assert (code, report.get("ok")) == (0, 2), shell.said
            code, report = await shell.call("run-status", "secured")
            assert (code, report["completed"]) == (0, 2)
            code, report = await shell.call("claims", "gc", "--dry-run")
            assert (code, report["stored"], report["young"]) == (0, 1, 1), shell.said
            await _well(shell, "status")
            report = await _well(shell, "doctor", "--policy", POLICY)
            assert report["healthy"] is True
            processes = shown()
        finally:
            await shell.call("down")
        await _refused(shell, broker)
    told = shell.said + processes + written(tmp_path / "stack" / "workers")
    for path in (tmp_path / "stack").glob("*.json"):
        told += path.read_text()

    for secret in (*broker.passwords.values(), provider_key, marker):
        assert secret not in told
    rows = [json.loads(row) for row in out.read_bytes().splitlines()]
    assert [row["error"] for row in rows] == [None, None]


async def _well(shell: Shell, *arguments: str) -> dict[str, object]:
    """Ask until nothing is found wrong: a loaded machine may keep who asks waiting for an answer."""
    async with asyncio.timeout(120):
        while True:
            code, report = await shell.call(*arguments)
            if code == 0:
                return report


async def _refused(shell: Shell, broker: Secured) -> None:
    """A command with a wrong password exits 3 and says so, without it."""
    wrong = broker.folder / "wrong.yaml"
    wrong.write_text(json.dumps(broker.values() | {"sasl_plain_password": "not-the-password-1"}))
    environment = {"SIGNALBOX_BROKER_SETTINGS": str(wrong)}
    other = Shell(broker.folder, environment)
    code, _ = await other.call("run-status", "secured", "--broker", broker.address)

    assert (code, "login of 'admin' was refused" in other.said) == (3, True), other.said
    assert "not-the-password-1" not in other.said
    shell.said += other.said
