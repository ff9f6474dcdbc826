"""The commands pause and resume: repeatable, honest, and they name what is there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import streams.pause_cli
from schemas.codec import Codec
from schemas.control import Paused, Resumed
from schemas.topics import CONTROL_EVENTS
from signalbox import app
from streams.app import load_registries, make_world, topic_counts
from streams.memory import MemoryLog
from streams.runners import World
from streams.telemetry import Telemetry

NOW = 1_790_000_000_000


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryLog:
    """Let the commands find an in-memory log where a broker would be."""
    monkeypatch.chdir(tmp_path)
    load_registries()
    log = MemoryLog(topic_counts(["north", "south"], 2), lambda: NOW)

    @asynccontextmanager
    async def connected(_found: object) -> AsyncIterator[World]:
        world = make_world(log, Telemetry(lambda: NOW * 1000, quiet=True), "client")
        await world.policies.start()
        yield world
        await world.policies.stop()

    monkeypatch.setattr(streams.pause_cli, "connected", connected)
    return log


def call(*arguments: str) -> Result:
    """Run `signalbox` in this process."""
    return CliRunner().invoke(app, [*arguments, "--broker", "127.0.0.1:1"])


def told(*arguments: str) -> Any:
    """Return the JSON object that a command prints."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def orders(log: MemoryLog) -> list[object]:
    """Return what was written to `control.events`."""
    return [Codec().decode(e.value) for e in log.envelopes(CONTROL_EVENTS)]


def test_a_pause_is_written_once_and_resumed_once(log: MemoryLog) -> None:
    """Repeating either command changes nothing, says so, and succeeds."""
    first = told("pause", "--provider", "north", "--reason", "red")
    again = told("pause", "--provider", "north", "--reason", "another")
    back = told("resume", "--provider", "north")
    idle = told("resume", "--provider", "north")

    assert (first["paused"], first["changed"], again["changed"]) == (True, True, False)
    assert (again["reason"], again["since"]) == ("red", NOW)
    assert first["resume"] == "signalbox resume --provider north"
    assert (back["paused"], back["changed"], idle["changed"]) == (False, True, False)
    assert [type(order) for order in orders(log)] == [Paused, Resumed]


def test_resuming_all_names_what_stays_paused() -> None:
    """The general pause ends and no other one; the output says which are left, and how they end."""
    told("pause", "--tenant", "acme", "--reason", "owes")
    told("pause", "--all")
    left = told("resume", "--all")["still_paused"]
    said = call("resume", "--all").stdout

    assert [(p["scope"], p["name"], p["reason"]) for p in left] == [("tenant", "acme", "owes")]
    assert "signalbox resume --tenant acme" in said


@pytest.mark.parametrize(
    "target",
    [(), ("--provider", "nroth"), ("--stage", "decisions"), ("--tenant", ""), ("--all", "--tenant", "acme")],
    ids=str,
)
def test_what_names_nothing_or_two_things_is_refused(target: tuple[str, ...], log: MemoryLog) -> None:
    """A typing error would pause nothing without a word: it is bad input, and nothing is written."""
    done = call("pause", *target)

    assert done.exit_code == 2
    assert orders(log) == []


def test_every_role_can_be_paused() -> None:
    """Each stage that has workers is a target, and each provider."""
    for role in ("admission", "signals.heuristics", "decision", "dispatch", "provider.south"):
        assert told("pause", "--stage", role)["changed"]


def test_a_pause_of_a_signal_role_says_what_it_means() -> None:
    """Requests go on without its signals, which an operator should know."""
    assert "decide_by" in call("pause", "--stage", "signals.heuristics").stdout


def test_without_a_stack_the_exit_code_is_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is known: a dependency is down."""
    monkeypatch.delenv("SIGNALBOX_BROKER", raising=False)

    assert CliRunner().invoke(app, ["pause", "--all"]).exit_code == 3
