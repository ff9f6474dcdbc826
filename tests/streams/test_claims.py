"""The claim check: kept before it is written, fetched before it is looked at, or refused as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents.errors import InvalidRecord, Refused, Unavailable
from agents.testing import policy_of, request_of
from schemas.completion import Completion, Result
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.sealed import Claim, seal_plainly, unseal
from streams.claims import ClaimCheck, ClaimLimits
from streams.clients.claims import MemoryClaims
from tests.schemas.records import SAMPLES
from tests.streams.batch_world import POLICY

LIMITS = ClaimLimits(inline_bytes=1000, budget_s=1.5)
REQUEST = request_of(policy_of(POLICY), "a", "x" * 2000, now=0)
SMALL = request_of(policy_of(POLICY), "b", "hello", now=0)
RESULT = next(record for record in SAMPLES if isinstance(record, Result))
COMPLETION = next(record for record in SAMPLES if isinstance(record, Completion))


def body(request: Request) -> bytes:
    """Return the body of *request*, which is inline."""
    assert request.body.sealed is not None
    return unseal(request.body.sealed)


def envelope(request: Any) -> tuple[Envelope, Any]:
    """Return *request* as a stage gets it."""
    return Envelope("requests", 0, 0, 0, None, None), request


async def test_a_large_body_is_kept_and_a_small_one_travels() -> None:
    """What is written holds no byte of a large body; size and digest stay those of the body."""
    store = MemoryClaims()
    claims = ClaimCheck(store, LIMITS)
    kept = await claims.check_in(REQUEST)

    assert await claims.check_in(SMALL) is SMALL
    assert (kept.body.sealed, kept.body.size, kept.body.digest) == (
        None,
        len(body(REQUEST)),
        REQUEST.body.digest,
    )
    assert await claims.body_of(kept) == body(REQUEST)
    assert [data for data, _ in store.kept.values()] == [body(REQUEST)]


async def test_two_equal_requests_are_kept_twice() -> None:
    """Nobody can tell from a place that somebody else sent the same."""
    store = MemoryClaims()
    claims = ClaimCheck(store, LIMITS)
    first, second = await claims.check_in(REQUEST), await claims.check_in(REQUEST)

    assert first.body.claim is not None
    assert second.body.claim is not None
    assert first.body.claim.uri != second.body.claim.uri
    assert len(store.kept) == 2


async def test_without_a_store_a_large_body_is_refused() -> None:
    """The caller reads how large it is, how large it may be, and which setting is missing."""
    with pytest.raises(Refused, match=r"more than the 1000 .*SIGNALBOX_CLAIMS") as caught:
        await ClaimCheck(None, LIMITS).check_in(REQUEST)

    assert caught.value.code == "body_too_large"


async def test_a_full_store_refuses_and_keeps_nothing() -> None:
    """Nothing is half accepted."""
    store = MemoryClaims()
    store.full = True
    with pytest.raises(Refused) as caught:
        await ClaimCheck(store, LIMITS).check_in(REQUEST)

    assert caught.value.code == "claim_store_full"
    assert store.kept == {}


async def test_what_an_inbox_accepted_waits_for_room() -> None:
    """Nobody is there to be refused: a full store is waited for, and takes the body once there is room."""
    store = MemoryClaims()
    store.full = True
    claims = ClaimCheck(store, LIMITS)
    with pytest.raises(Unavailable, match="full"):
        await claims.check_in_when_there_is_room(REQUEST)
    store.full = False

    assert (await claims.check_in_when_there_is_room(REQUEST)).body.claim is not None


async def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    """Within the budget an outage is not seen."""
    store = MemoryClaims()
    claims = ClaimCheck(store, LIMITS)
    store.failures = 2
    kept = await claims.check_in(REQUEST)
    claims = ClaimCheck(store, LIMITS)
    store.failures = 1

    assert await claims.body_of(kept) == body(REQUEST)


async def test_a_store_that_stays_away_is_said_to_be() -> None:
    """After the budget the error says so; a stage gets the request as it is, and says that it saw no body."""
    store = MemoryClaims()
    claims = ClaimCheck(store, LIMITS)
    kept = await claims.check_in(REQUEST)
    store.down = True

    with pytest.raises(Unavailable):
        await ClaimCheck(store, LIMITS).body_of(kept)
    (_, seen), _ = await ClaimCheck(store, LIMITS).at_hand([envelope(kept), envelope(SMALL)])
    assert seen is kept


@pytest.mark.parametrize("wrong", [b"", b"other", "longer"])
async def test_other_bytes_are_never_passed_for_the_body(wrong: bytes | str) -> None:
    """Size and digest are checked on every read; the record is invalid, not the request's content."""
    store = MemoryClaims()
    claims = ClaimCheck(store, LIMITS)
    kept = await claims.check_in(REQUEST)
    (reference,) = store.kept
    data = body(REQUEST)
    stored = data[:-1] + b"!" if wrong == b"other" else data + b"x" * 5000 if wrong == "longer" else b""
    store.kept[reference] = (stored, 0)

    for read in (claims.body_of(kept), claims.at_hand([envelope(kept)])):
        with pytest.raises(InvalidRecord, match="claim "):
            await read


async def test_fetched_bodies_take_the_place_of_their_claims() -> None:
    """A stage sees an inline body, and the order of its chunk."""
    claims = ClaimCheck(MemoryClaims(), LIMITS)
    kept = await claims.check_in(REQUEST)
    seen = await claims.at_hand([envelope(SMALL), envelope(kept), envelope(SMALL)])

    assert [body(request) for _, request in seen] == [body(SMALL), body(REQUEST), body(SMALL)]


class Slow(MemoryClaims):
    """Counts how many gets run at once, and how many there are."""

    running = most = gets = 0

    async def get(self, reference: str, limit: int) -> bytes:
        """Take a moment."""
        self.gets += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return await super().get(reference, limit)


async def test_fetching_is_bounded_and_cached() -> None:
    """At most so many fetches run at once; what was fetched a moment ago is not fetched again."""
    store = Slow()
    claims = ClaimCheck(store, ClaimLimits(1000, 1.5, concurrency=3, cache_bytes=2500))
    kept = [await claims.check_in(REQUEST) for _ in range(12)]
    await asyncio.gather(*[claims.body_of(request) for request in kept])
    assert store.most == 3
    assert store.gets == 12

    await claims.body_of(kept[-1])
    assert store.gets == 12
    await claims.body_of(kept[0])
    assert store.gets == 13
    assert claims._cached <= 2500


def test_a_chunk_is_cut_before_its_bodies_fill_the_memory() -> None:
    """What one chunk holds of fetched bodies is bounded; a single record always fits."""
    claims = ClaimCheck(None, ClaimLimits(chunk_bytes=3000))
    claim = Claim("ref", "", "none", b"")
    kept = replace(REQUEST, body=replace(REQUEST.body, size=2000, sealed=None, claim=claim))

    assert claims.fits([envelope(kept)] * 1)
    assert not claims.fits([envelope(kept)] * 2)
    assert claims.fits([envelope(SMALL)] * 100)


@pytest.mark.parametrize("record", [RESULT, COMPLETION], ids=["result", "completion"])
async def test_a_large_answer_is_kept_too(record: Any) -> None:
    """It comes back as it was; small ones and other records travel as they are."""
    claims = ClaimCheck(MemoryClaims(), LIMITS)
    large = replace(record, answer=seal_plainly(b"y" * 2000))
    kept = await claims.check_in_answer(large)

    assert (kept.answer, kept.answer_claim.size) == (None, 2000)
    assert await claims.check_in_answer(REQUEST) is REQUEST
    if isinstance(record, Result):
        assert await claims.answered(kept) == large
        assert await claims.answered(record) is record


async def test_a_full_store_does_not_throw_an_answer_away() -> None:
    """An answer was paid for: it waits for room instead of being refused."""
    store = MemoryClaims()
    store.full = True
    with pytest.raises(Unavailable):
        await ClaimCheck(store, LIMITS).check_in_answer(replace(RESULT, answer=seal_plainly(b"y" * 2000)))
