"""A child process never outlives whoever started it, nor leaves children of its own."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.errors import StackError, StartFailed
from infra.local.identity import Identity, marked
from infra.local.process import Command, Process, tail
from infra.local.service import until_healthy

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


async def spawned(script: str, folder: Path, lines: int = 1) -> Process:
    """Start a Python script and wait until it has printed *lines* lines."""
    process = await Process.spawn(Command("script", (sys.executable, "-c", script), folder / "log"))
    for _ in range(6_000):
        if process.tail().count("up") == lines:
            return process
        await asyncio.sleep(0.01)
    raise AssertionError(process.tail())


async def test_a_stopped_process_has_ended_by_sigterm(tmp_path: Path) -> None:
    """Stopping asks first."""
    process = await spawned(SLEEPER, tmp_path)
    await process.stop()

    assert not process.running
    assert process.exit_code == -signal.SIGTERM


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """Stopping insists."""
    process = await spawned(DEAF, tmp_path)
    await process.stop(grace=0.2)

    assert process.exit_code == -signal.SIGKILL


async def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    """A second stop finds nothing to do."""
    process = await spawned(SLEEPER, tmp_path)
    await process.stop()
    await process.stop()

    assert not process.running


async def test_children_of_a_killed_process_are_killed_too(tmp_path: Path) -> None:
    """What a component started goes with it."""
    process = await spawned(PARENT, tmp_path, lines=2)
    assert len(list(marked(process.marker))) == 2

    await process.kill()

    assert list(marked(process.marker)) == []


def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    """Nothing outlives a starter that was killed and could not clean up."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from infra.local.process import Command, Process\n"
        "async def main():\n"
        f"    log = pathlib.Path({str(tmp_path)!r}) / 'log'\n"
        f"    child = await Process.spawn(Command('x', (sys.executable, '-c', {SLEEPER!r}), log))\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        identity = Identity.of(int(starter.stdout.readline()))
        assert identity is not None
        starter.kill()
        starter.wait()
        for _ in range(6_000):
            if not identity.alive():
                break
            asyncio.run(asyncio.sleep(0.01))

    assert not identity.alive()


async def test_a_program_that_does_not_exist_says_so_in_its_log(tmp_path: Path) -> None:
    """The reason is where the error message looks for it."""
    process = await Process.spawn(Command("ghost", ("/no/such/program",), tmp_path / "log"))

    assert await process.wait() != 0
    assert "cannot run /no/such/program" in process.tail()


async def test_waiting_for_a_process_that_died_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """The user reads why, without looking for the file."""

    async def never() -> bool:
        return False

    # Long enough that whoever starts it is told of it alive, also on a loaded machine.
    script = "import sys, time; time.sleep(2); sys.exit('the disk is on fire')"
    process = await Process.spawn(Command("script", (sys.executable, "-c", script), tmp_path / "log"))
    with pytest.raises(StartFailed, match=r"exited with 1 .*\n.*the disk is on fire"):
        await until_healthy("script", never, process, within=20.0)


async def test_a_log_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A file in the place of the log's folder is told by name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StackError, match="file/log"):
        await Process.spawn(Command("x", ("true",), tmp_path / "file" / "log"))


def test_the_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    """No log, nothing to show."""
    assert tail(tmp_path / "missing") == ""
