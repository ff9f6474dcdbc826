"""Backfill: a policy that needs signals that nobody observed gets those, and only those, from requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

import signalbox
from agents.policy import Policy
from agents.ports import Inference
from replay.adoption import no_classifier
from replay.archive import Source, archive
from replay.archive_files import Files
from replay.backfill import Backfilled
from replay.comparison import compare
from replay.logged import ArchivedLog, KeptLog
from replay.view import MemoryLog
from schemas.codec import Codec
from schemas.envelope import Envelope
from schemas.identity import body_digest
from schemas.request import Request
from schemas.sealed import Body, Claim, Sealed, seal_plainly
from tests.replay.logs import POLICY_YAML, LogBuilder, kept

NEEDS_MORE = POLICY_YAML.replace(
    "      - {name: urgent, operator: OR, keywords: [urgent]}",
    "      - {name: urgent, operator: OR, keywords: [urgent]}\n"
    "      - {name: greeting, operator: OR, keywords: [hello]}",
).replace("          - {type: keyword, name: urgent}", "          - {type: keyword, name: greeting}")


def body(text: str) -> Body:
    """Return a body that says *text*."""
    data = orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]})
    return Body(len(data), body_digest("acme", data), seal_plainly(data))


def bodied() -> LogBuilder:
    """Return a log of eight requests: four greet, one is shredded, one is claimed, one is no chat."""
    builder = LogBuilder()
    for number in range(8):
        builder.decided(number)
    codec, count = Codec(), 0
    for at, envelope in enumerate(builder.envelopes):
        if envelope.topic != "requests":
            continue
        request: Request = codec.decode(envelope.value)
        said = body("hello there" if count % 2 else "good day")
        if count == 5:
            said = replace(said, sealed=Sealed("key-1", "aes-gcm", b"n", b"gone"))
        if count == 6:
            said = replace(said, sealed=None, claim=Claim("ab/cd", "", "none", b""))
        if count == 4:
            said = Body(7, body_digest("acme", b"no chat"), seal_plainly(b"no chat"))
        value = codec.encode(replace(request, body=said, subject=None, headers=None))
        builder.envelopes[at] = replace(envelope, value=value)
        count += 1
    return builder


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """The log."""
    return bodied()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop."""
    with asyncio.Runner() as found:
        yield found


def view(builder: LogBuilder) -> MemoryLog:
    """Return the log of *builder*."""
    return MemoryLog(builder.envelopes, builder.policies)


def test_what_is_lacking_is_computed_and_decides(builder: LogBuilder, runner: asyncio.Runner) -> None:
    """Every request lacks the new keyword; where its body can be read it is known afterwards, as it is."""
    policy = Policy.parse(NEEDS_MORE)
    before = compare(KeptLog(view(builder)), policy)
    whole = Backfilled(KeptLog(view(builder)), policy, no_classifier, runner)
    after = compare(whole, policy)

    assert (before.decisions, before.unknown) == (8, 8)
    assert after.unknown == 8 - whole.filled.observed
    assert (whole.filled.lacking, whole.filled.shredded, whole.filled.elsewhere) == (8, 1, 1)
    assert (whole.filled.observed, whole.filled.refused, whole.filled.unanswered) == (5, 1, 0)
    greets = {b"hello" in unsealed(builder, p, o) for p, o in matched(whole)}
    assert greets == {True}
    assert len(matched(whole)) == 3


def matched(whole: Backfilled) -> set[tuple[int, int]]:
    """Return partition and offset of each request for which the new keyword was computed and matched."""
    batches = ((p, batch) for p in whole.partitions() for batch in whole.batches(p))
    rows = (
        (p, origin["offset"], row)
        for p, batch in batches
        for origin, row in zip(batch.decisions["origin"].to_pylist(), batch.signals.to_pylist(), strict=True)
    )
    return {(p, at) for p, at, row in rows if any(e["name"] == "greeting" and e["matched"] for e in row)}


def unsealed(builder: LogBuilder, partition: int, offset: int) -> bytes:
    """Return the body of a request of the log."""
    (envelope,) = [
        e for e in builder.envelopes if (e.topic, e.partition, e.offset) == ("requests", partition, offset)
    ]
    return envelope.value or b""


def test_what_was_logged_is_not_touched(builder: LogBuilder, runner: asyncio.Runner) -> None:
    """The logged observations stay as they were; one is added, and of a policy that lacks nothing none."""
    before = [r for p in range(4) for b in KeptLog(view(builder)).batches(p) for r in b.signals.to_pylist()]
    whole = Backfilled(KeptLog(view(builder)), Policy.parse(NEEDS_MORE), no_classifier, runner)
    after = [r for p in range(4) for b in whole.batches(p) for r in b.signals.to_pylist()]
    same = Backfilled(KeptLog(view(builder)), builder.policy, no_classifier, runner)
    compare(same, builder.policy)

    assert list(map(repr, (row[:3] for row in after))) == list(map(repr, before))
    assert {each["name"] for row in after for each in row[3:]} == {"greeting"}
    assert same.filled.lacking == 0


async def no_asking(classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
    """Fail the test: nothing that a classifier tells is lacking."""
    raise AssertionError(f"{classifier} was asked about {len(texts)} texts within {timeout_s} s")


def test_a_role_is_asked_only_where_a_signal_of_it_lacks(builder: LogBuilder, runner: asyncio.Runner) -> None:
    """No classifier is asked where only a keyword was not logged, although the policy demands both."""
    whole = Backfilled(KeptLog(view(builder)), Policy.parse(NEEDS_MORE), no_asking, runner)
    compare(whole, whole.policy)

    assert (whole.filled.lacking, whole.filled.observed, whole.filled.failed) == (8, 5, 1)


def test_a_request_that_no_classifier_answered_for_is_not_called_refused(
    builder: LogBuilder, runner: asyncio.Runner
) -> None:
    """Only of the body that is no chat it is said that nothing can be observed of it."""
    policy = Policy.parse(
        POLICY_YAML.replace("name: maths, ", "name: sums, ").replace("name: maths}", "name: sums}")
    )
    whole = Backfilled(KeptLog(view(builder)), policy, no_classifier, runner)
    compare(whole, policy)
    filled = whole.filled

    assert (filled.lacking, filled.observed, filled.unanswered, filled.refused) == (8, 0, 5, 1)
    assert (filled.shredded, filled.elsewhere, filled.absent) == (1, 1, 0)


def test_a_repeat_is_not_counted_again(builder: LogBuilder, runner: asyncio.Runner) -> None:
    """A decision that is in the log twice is one request that lacks something."""
    last = [e for e in builder.envelopes if e.topic == "decisions"][-1]
    again = replace(last, offset=last.offset + 5, timestamp=last.timestamp + 5)
    log = MemoryLog([*builder.envelopes, again], builder.policies)
    whole = Backfilled(KeptLog(log), Policy.parse(NEEDS_MORE), no_classifier, runner)
    found = compare(whole, whole.policy)

    assert (found.decisions, found.repeats, whole.filled.lacking) == (8, 1, 8)
    assert whole.filled.observed == 5


class Opened:
    """A codec that remembers how many records it was given."""

    def __init__(self, codec: Codec) -> None:
        self.count = 0
        self._codec = codec

    def decode_as(self, cls: type, value: bytes | None) -> object:
        """Decode."""
        self.count += 1
        return self._codec.decode_as(cls, value)


class Turned(MemoryLog):
    """A log that remembers which offsets were read of it."""

    seen: tuple[int, ...] = ()

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Read."""
        for envelope in super().read(topic, partition):
            self.seen += (envelope.offset,)
            yield envelope


def test_requests_that_are_not_wanted_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kept log only those at the offsets are, and nothing is read much beyond the last of them."""
    builder = LogBuilder()
    offsets = [builder.request(4 * number)[1].offset for number in range(40)]
    log = Turned(builder.envelopes, builder.policies)
    logged, codec = KeptLog(log), Opened(Codec())
    monkeypatch.setattr(logged, "_codec", codec)
    found = [offset for offset, _ in logged.bodied(0, {offsets[7], offsets[3]})]

    assert (found, codec.count) == ([offsets[3], offsets[7]], 2)
    assert log.seen == tuple(offsets[:9])
    assert list(logged.bodied(0, set())) == []


def test_an_archive_needs_its_bodies_for_it(
    builder: LogBuilder, runner: asyncio.Runner, tmp_path: Path
) -> None:
    """With bodies it comes to what the log comes to; without, all are counted as absent and stay unknown."""
    policy = Policy.parse(NEEDS_MORE)
    log = Backfilled(KeptLog(view(builder)), policy, no_classifier, runner)
    expected = compare(log, policy)
    for name, bodies in (("with", True), ("without", False)):
        files = Files(str(tmp_path / name))
        archive(Source(view(builder), "c", "signalbox"), files, bodies=bodies, chunk=3)
        whole = Backfilled(ArchivedLog(files), policy, no_classifier, runner)
        found = compare(whole, policy)
        if bodies:
            assert (found.cells.keys(), found.unknown) == (expected.cells.keys(), expected.unknown)
            assert whole.filled == log.filled
        else:
            assert (found.unknown, whole.filled.absent) == (8, 8)


def test_the_command_prints_what_came_of_it(builder: LogBuilder, tmp_path: Path) -> None:
    """Exit 4 while too much stays unknown; it goes with --policy only."""
    kept(str(tmp_path / "log"), builder.envelopes, builder.policies)
    policy = tmp_path / "policy.yaml"
    policy.write_text(NEEDS_MORE)
    command = ["replay", "decide", "--log", str(tmp_path / "log"), "--backfill", "--json"]
    found = CliRunner().invoke(signalbox.app, [*command, "--policy", str(policy)])
    refused = CliRunner().invoke(signalbox.app, command)

    assert found.exit_code == 4
    assert orjson.loads(found.stdout)["backfill"]["shredded"] == 1
    assert (refused.exit_code, "--policy" in refused.stderr) == (2, True)
