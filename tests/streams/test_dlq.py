"""Dead letters in operators' hands: listed, returned unchanged and once, or given up."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import streams.dlq_cli
from agents.testing import request_of
from schemas.dead_letter import DeadLetter, LetterClosed
from schemas.envelope import Envelope
from schemas.topics import DEAD_LETTERS, REQUESTS
from signalbox import app
from streams.app import make_world, roles_for
from streams.dlq import OPEN, Entry, Filter, Orders, Outcome, last, letters, purge, redrive
from streams.runners import World
from streams.telemetry import Telemetry
from tests.streams.plays import Play

YAML = """
providers:
  models: [{name: small, backend_refs: [{name: north}]}]
routing:
  signals:
    keywords: [{name: code, operator: OR, keywords: [python]}]
  decisions:
    - {name: code, rules: {type: keyword, name: code}, modelRefs: [{model: small}]}
    - {name: rest, modelRefs: [{model: small}]}
deadlines: {request_s: 20, call_s: 2, attempts: 1}
"""
BY = Orders("ada")


def world_of(play: Play) -> World:
    """Return a client's world on the play's log."""
    return make_world(play.log, Telemetry(play.clock, quiet=True), "client")


async def redriven(play: Play, wanted: Filter | None = None, orders: Orders = BY) -> Outcome:
    """Redrive the letters that are meant."""
    every = await letters(world_of(play))
    chosen = [e for e in every if (wanted or Filter(state=OPEN)).takes(e)]
    return await last(redrive(world_of(play), every, chosen, orders))


async def purged(play: Play, orders: Orders = BY) -> Outcome:
    """Purge every open letter."""
    every = await letters(world_of(play))
    return await last(purge(world_of(play), every, [e for e in every if e.state == OPEN], orders))


def break_step(play: Play, role: str, times: int) -> None:
    """Let the step of the worker's join *role* fail *times* times, as a defect that is fixed later would."""
    stage = next(h.runner for w in play.workers for h in w.fleet.hosts if h.runner.group == role)
    real, left = stage._stage.step, [times]  # type: ignore[attr-defined]

    def step(*given: Any) -> Any:
        if left[0]:
            left[0] -= 1
            message = f"cannot read {given}"
            raise ZeroDivisionError(message)
        return real(*given)

    object.__setattr__(stage._stage, "step", step)  # type: ignore[attr-defined]


@pytest.mark.parametrize("role", ["decision", "dispatch"])
async def test_a_redriven_request_gets_its_result(role: str) -> None:
    """Key, value, headers and id come back as they were, and nothing on the way takes it for a repeat."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        break_step(play, role, 1)
        request = request_of(play.policy, "r", "python", now=play.clock.now)
        headers = (("traceparent", b"00-aa-bb-01"), ("own", b"\xff"))
        play.log.append((REQUESTS, 0), request.request_id, play.codec.encode(request), headers)
        await play.until(lambda: play.total([DEAD_LETTERS]) == 1, "the letter")
        await play.quiet()
        assert play.records("results") == []

        outcome = await redriven(play)
        await play.until(lambda: play.total(["results"]) == 1, "the result")
        await play.quiet()
        first, again = play.log.envelopes(REQUESTS)

        assert [e.letter.stage for e in outcome.done] == [role]
        assert (again.key, again.value, again.headers) == (first.key, first.value, first.headers)
        assert [(r.request_id, r.status) for r in play.records("results")] == [(request.request_id, 200)]
        assert len(play.provider.calls) == 1


async def test_a_letter_is_redriven_once_unless_forced() -> None:
    """A second redrive leaves it alone and says why; forced it goes again, and still nothing is doubled."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        break_step(play, "decision", 1)
        play.ask(request_of(play.policy, "r", "python", now=play.clock.now))
        await play.until(lambda: play.total([DEAD_LETTERS]) == 1, "the letter")
        await redriven(play)
        again = await redriven(play, Filter())
        forced = await redriven(play, Filter(), Orders("ada", force=True))
        await play.until(lambda: play.total(["results"]) >= 1, "the result")
        await play.quiet()

        assert ([e.id for e in again.done], [why for _, why in again.left]) == (
            [],
            ["already redriven; --force does it again"],
        )
        assert len(forced.done) == 1
        assert play.total([REQUESTS]) == 3
        assert len(play.provider.calls) == 1


async def test_what_every_stage_buried_is_returned_once() -> None:
    """An unreadable request has a letter of each of its readers; one redrive closes them all."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        play.log.append((REQUESTS, 0), b"k" * 16, b"not ours")
        await play.until(lambda: play.total([DEAD_LETTERS]) == 3, "a letter of each reader")
        told = await redriven(play, orders=Orders("ada", dry_run=True))
        assert (len(told.done), play.total([REQUESTS])) == (1, 1)
        outcome = await redriven(play)
        await play.until(lambda: play.total([DEAD_LETTERS]) == 9, "it dies again, of everyone")

        assert (len(outcome.done), play.total([REQUESTS])) == (1, 2)
        closed = [r for r in play.records(DEAD_LETTERS) if isinstance(r, LetterClosed)]
        assert [(c.verb, c.actor, c.topic, c.to_offset) for c in closed] == [
            ("redriven", "ada", REQUESTS, 1)
        ] * 3


async def test_what_went_on_without_a_signal_is_left_alone() -> None:
    """A request that a signal role buried was decided all the same: returning it would change nothing."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1")
        letter = DeadLetter("signal.heuristics", "ValueError", "why", REQUESTS, 0, 0, 1, 1, "h", 2)
        entry = Entry(0, 0, letter, 3)
        outcome = await last(redrive(world_of(play), [entry], [entry], BY))

        assert (outcome.done, [why for _, why in outcome.left]) == (
            [],
            ["its request went on without this signal; nothing would change"],
        )


async def test_a_purged_request_ends_with_an_error() -> None:
    """Its result says that it was given up; with --expired only what is past its deadline is given up."""
    async with Play(YAML, partitions=1) as play:
        await play.publish()
        await play.worker("w1", roles_for(play.policy))
        break_step(play, "decision", 1)
        request = request_of(play.policy, "r", "python", now=play.clock.now)
        play.ask(request)
        await play.until(lambda: play.total([DEAD_LETTERS]) == 1, "the letter")
        await play.quiet()
        early = await purged(play, Orders("ada", expired_only=True))
        assert [why for _, why in early.left] == ["its deadline has not passed"]
        play.clock.advance(request.deadline - play.clock.now + 1)
        await purged(play, Orders("ada", expired_only=True))

        (result,) = play.records("results")
        assert (result.request_id, result.status, result.error_code) == (
            request.request_id,
            500,
            "dead_letter_purged",
        )
        assert (result.tenant, result.run, result.custom_id) == (
            request.tenant,
            request.run,
            request.custom_id,
        )
        assert [e.state for e in await letters(world_of(play))] == ["purged"]


@pytest.fixture
async def commands(monkeypatch: pytest.MonkeyPatch) -> Play:
    """A play with two letters, whose log the commands find where a broker would be."""
    play = Play(YAML, partitions=1)
    await play.publish()
    world = world_of(play)
    asked = request_of(play.policy, "r", "python", now=play.clock.now)
    for stage, error, value in (
        ("decision", ZeroDivisionError("secret"), play.codec.encode(asked)),
        ("provider.north", ValueError("secret"), b"\x00 secret"),
    ):
        envelope = Envelope(REQUESTS, 0, 4, 1, asked.request_id, value, (("h", b"\xff"),))
        await world.letters.of(stage, "role").bury(envelope, error)
        play.clock.advance(60_000)

    @asynccontextmanager
    async def connected(_found: object) -> AsyncIterator[World]:
        yield world_of(play)

    monkeypatch.setattr(streams.dlq_cli, "connected", connected)
    return play


def call(*arguments: str) -> Result:
    """Run `signalbox dlq`."""
    return CliRunner().invoke(app, ["dlq", *arguments, "--broker", "127.0.0.1:1"])


def told(*arguments: str) -> Any:
    """Return the JSON object that a command prints, which quotes no record."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert "secret" not in done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 2), (("--stage", "decision"), 1), (("--topic", "requests"), 2), (("--topic", "jobs"), 0),
        (("--error", "ValueError"), 1), (("--id", "0-0", "--id", "0-1"), 2), (("--id", "0-7"), 0),
        (("--since", "2100-01-01T00:00"), 0), (("--until", "2100-01-01T00:00+01:00"), 2),
        (("--since", "90s"), 1), (("--until", "90s"), 1),
        (("--tenant", "default"), 1), (("--tenant", "x"), 0),
        (("--state", "open"), 2), (("--state", "purged"), 0),
    ],
)  # fmt: skip
def test_list_takes_filters(commands: Play, filters: tuple[str, ...], count: int) -> None:
    """Each filter narrows what is listed."""
    assert commands.total([DEAD_LETTERS]) == 2
    found = told("list", *filters)

    assert found["count"] == len(found["letters"]) == count


def test_show_tells_all_but_the_content(commands: Play, tmp_path: Any) -> None:
    """Where, why, whose, headers; the bytes themselves go to a file, on request."""
    path = tmp_path / "value"
    found = told("show", "0-1", "--value", str(path))

    assert (found["stage"], found["error"], found["topic"], found["offset"]) == (
        "provider.north",
        "ValueError",
        "requests",
        4,
    )
    assert found["headers"] == {"h": "\\xff"}
    assert path.read_bytes() == b"\x00 secret"
    assert call("show", "9-9").exit_code == 1
    assert commands.total([DEAD_LETTERS]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("redrive",),
        ("purge",),
        ("list", "--since", "soon"),
        ("list", "--request", "zz"),
        ("list", "--state", "x"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(commands: Play, arguments: tuple[str, ...]) -> None:
    """Nothing is returned or given up without a filter or --all; wrong values say what is right."""
    assert call(*arguments).exit_code == 2
    assert commands.total([DEAD_LETTERS]) == 2


def test_redrive_and_purge_tell_what_they_did(commands: Play) -> None:
    """A dry run writes nothing; then one original is returned, and nothing is left to purge."""
    assert told("redrive", "--all", "--dry-run")["count"] == 1
    assert commands.total([REQUESTS]) == 0
    done = told("redrive", "--stage", "decision", "--rate", "1000")
    assert ([e["id"] for e in done["redriven"]], commands.total([REQUESTS])) == (["0-0"], 1)
    assert told("list", "--state", "redriven")["count"] == 2
    assert told("purge", "--all")["count"] == 0
    assert call("redrive", "--id", "0-9").exit_code == 1
