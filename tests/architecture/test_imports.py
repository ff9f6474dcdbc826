"""Importing a module does nothing but define what is in it."""

import json
import subprocess
import sys

import pytest

from tests.architecture.repository import ROOT, Source, sources

# Run in a process of its own: the modules must be imported for the first time. Foreign packages come first,
# since some of them probe the network when they are imported, which is not ours to judge.
PROBE = """
import gc, importlib, json, sys
foreign, ours = json.load(sys.stdin)
for name in foreign:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
seen = []
forbidden = {"socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir"}
sys.addaudithook(lambda event, args: seen.append(f"{current}: {event}") if event in forbidden else None)
for current in ours:
    importlib.import_module(current)
    if "faust" in sys.modules:
        app = sys.modules["faust"].App
        seen += [f"{current}: faust.App" for thing in gc.get_objects() if type(thing) is app]
print(json.dumps(seen))
"""


def imported() -> list[Source]:
    """Return the modules to import; Triton's models live in their own environment, tests are not shipped."""
    return [source for source in sources() if source.room not in {"tests", "triton_models"}]


def run(foreign: list[str], ours: list[str]) -> list[str]:
    """Import *foreign* and then *ours* in a fresh process; return what importing *ours* did besides."""
    process = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps([foreign, ours]),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert process.returncode == 0, process.stderr
    seen: list[str] = json.loads(process.stdout)
    return seen


@pytest.mark.timeout(400)  # a process for each package, on machines that others use too
def test_importing_a_module_opens_no_socket_and_creates_no_app() -> None:
    """No module connects, starts a process, makes a folder or creates a Faust app when it is imported."""
    rooms = {source.room.removesuffix(".py") for source in imported()}
    names = {name for source in imported() for name in source.imports()}
    foreign = sorted(name for name in names if name.split(".")[0] not in rooms)

    assert run(foreign, [source.module for source in imported()]) == []


def test_the_probe_sees_a_module_that_does() -> None:
    """The test above is able to fail: a module that opens a socket and makes an app is noticed."""
    seen = run(["faust"], ["tests.architecture.misbehaving"])

    assert "tests.architecture.misbehaving: socket.bind" in seen
    assert "tests.architecture.misbehaving: faust.App" in seen
