"""Ratings into the log: beside their request, acknowledged, and none of a request that nobody decided."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import streams.feedback_cli
from agents.ratings import Defaults, Line, lines_of
from agents.testing import request_of
from schemas.decision import Decision
from schemas.topics import FEEDBACK
from signalbox import app
from streams.app import make_world
from streams.feedback import give
from streams.runners import World
from streams.telemetry import Telemetry
from tests.streams.plays import Play

YAML = """
providers:
  models: [{name: small, backend_refs: [{name: north}]}]
routing:
  decisions: [{name: rest, modelRefs: [{model: small}]}]
"""
UNKNOWN = b"\x07" * 16


def world_of(play: Play) -> World:
    """Return a client's world on the play's log."""
    return make_world(play.log, Telemetry(play.clock, quiet=True), "client")


def lines(*rows: dict[str, Any]) -> list[Line]:
    """Read *rows* as a file of ratings."""
    return list(lines_of("\n".join(json.dumps(row) for row in rows).encode(), Defaults()))


@asynccontextmanager
async def decided() -> AsyncIterator[tuple[Play, list[Decision]]]:
    """Yield a play in which requests in two partitions were decided."""
    async with Play(YAML, partitions=2) as play:
        await play.publish()
        await play.worker("w1")
        for number, partition in ((1, 0), (2, 1), (3, 1)):
            play.ask(request_of(play.policy, f"r{number}", "x", now=play.clock.now), partition)
        await play.until(lambda: len(play.records("decisions")) == 3, "the decisions")
        await play.quiet()
        yield play, play.records("decisions")


async def test_a_rating_lies_in_the_partition_of_its_request() -> None:
    """With the request's place, so that an archive knows whose it is; the time is now."""
    async with decided() as (play, made):
        rows = [{"request_id": d.request_id.hex(), "reward": n} for n, d in enumerate(made)]
        given = await give(world_of(play), lines(*rows), look_up=True)
        found = {e.key: (e.partition, play.codec.decode(e.value)) for e in play.log.envelopes(FEEDBACK)}

        assert (given.written, given.refused) == (3, [])
        for number, decision in enumerate(made):
            partition, record = found[decision.request_id]
            assert partition == decision.origin.partition
            assert (record.origin, record.reward) == (decision.origin, number)
            assert record.arrived_at == play.clock.now


async def test_what_the_log_does_not_know_is_refused_and_the_rest_written() -> None:
    """A line for each: what is no rating, and what is one of a request that nobody decided."""
    async with decided() as (play, made):
        known = {"request_id": made[0].request_id.hex(), "reward": 1}
        rows = lines({"reward": 1}, {**known, "request_id": UNKNOWN.hex()}, known)
        given = await give(world_of(play), rows, look_up=True)

        assert given.written == play.total([FEEDBACK]) == 1
        assert [(line.number, line.code) for line in given.refused] == [
            (1, "request_not_named"),
            (2, "request_not_found"),
        ]


async def test_without_a_look_a_rating_is_taken_on_trust() -> None:
    """Its request may have left the log long ago."""
    async with decided() as (play, _):
        rows = lines({"request_id": UNKNOWN.hex(), "reward": 1})
        given = await give(world_of(play), rows, look_up=False)

        assert (given.written, given.refused) == (1, [])
        assert play.records(FEEDBACK)[0].origin is None


@pytest.fixture
async def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """A play whose log the command finds where a broker would be."""
    play = Play(YAML, partitions=1)
    await play.publish()

    @asynccontextmanager
    async def connected(_found: object) -> AsyncIterator[World]:
        yield world_of(play)

    monkeypatch.setattr(streams.feedback_cli, "connected", connected)
    return play


def call(path: Path, *arguments: str) -> Result:
    """Run `signalbox feedback`."""
    return CliRunner().invoke(app, ["feedback", str(path), *arguments, "--broker", "127.0.0.1:1"])


def test_the_command_tells_each_line_that_was_not_taken(play: Play, tmp_path: Path) -> None:
    """Exit 1 if there is one, 0 if not, 2 for a file that holds nothing."""
    path = tmp_path / "ratings.jsonl"
    path.write_text('{"custom_id": "c", "reward": 0.5}\n{"request_id": "x", "reward": 1}\n')
    some = call(path, "--no-lookup", "--run", "r", "--json")
    path.write_text('{"custom_id": "c", "reward": 0.5}\n')
    every = call(path, "--no-lookup", "--run", "r", "--metric", "speed", "--source", "ada")
    path.write_text("\n")

    assert some.exit_code == 1
    assert json.loads(some.stdout) == {
        "lines": 2,
        "written": 1,
        "refused": [{"line": 2, "code": "invalid_request_id", "message": "request_id is 32 hex digits"}],
    }
    assert (every.exit_code, every.stdout) == (0, "1 of 1 ratings written\n")
    assert [(r.metric, r.source) for r in play.records(FEEDBACK)] == [("quality", "user"), ("speed", "ada")]
    assert call(path).exit_code == 2
