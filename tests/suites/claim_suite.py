"""What every `ClaimStore` must do: one suite for the folder, the fake in memory and S3."""

from __future__ import annotations

import secrets

import pytest

from agents.errors import InvalidRecord
from schemas.claims import new_reference
from streams.clients.claims import ClaimStore, Stored

REQUEST = bytes(range(16))


def reference(nonce: bytes | None = None) -> str:
    """Return a new reference."""
    return new_reference(REQUEST, nonce or secrets.token_bytes(16))


async def listed(store: ClaimStore) -> list[Stored]:
    """Return what *store* holds."""
    return [found async for found in store.stored()]


class ClaimSuite:
    """A subclass gives the fixture `store`, an empty one."""

    @pytest.mark.parametrize("size", [0, 1, 300_000, 5_000_000])
    async def test_what_was_put_is_got(self, store: ClaimStore, size: int) -> None:
        """The same bytes come back, however many there are."""
        data = secrets.token_bytes(size)
        place = reference()
        await store.put(place, data)

        assert await store.get(place, size) == data

    async def test_what_was_never_put_is_an_invalid_record(self, store: ClaimStore) -> None:
        """A record that claims what is not there is named by its reference, and not asked for again."""
        with pytest.raises(InvalidRecord, match="is not in the claim store"):
            await store.get(reference(), 10)

    async def test_more_bytes_than_the_record_says_are_not_read(self, store: ClaimStore) -> None:
        """A store cannot make a worker hold more than the record promised."""
        place = reference()
        await store.put(place, b"x" * 1001)

        with pytest.raises(InvalidRecord, match="more than the 1000 bytes"):
            await store.get(place, 1000)

    async def test_deleting_leaves_the_others(self, store: ClaimStore) -> None:
        """What is deleted is gone, a second time nothing happens, and nothing else is touched."""
        kept, gone = reference(), reference()
        await store.put(kept, b"kept")
        await store.put(gone, b"gone")
        await store.delete(gone)
        await store.delete(gone)

        assert [found.reference for found in await listed(store)] == [kept]
        assert await store.get(kept, 10) == b"kept"

    async def test_the_listing_tells_sizes_and_times(self, store: ClaimStore) -> None:
        """Everything that is held is listed once, with its size and when it was put."""
        places = sorted(reference() for _ in range(5))
        for number, place in enumerate(places):
            await store.put(place, b"x" * number)
        found = sorted(await listed(store), key=lambda one: one.reference)

        assert [(one.reference, one.size) for one in found] == [(p, n) for n, p in enumerate(places)]
        assert max(one.modified for one in found) - min(one.modified for one in found) < 60_000

    async def test_an_empty_store_lists_nothing(self, store: ClaimStore) -> None:
        """There is nothing in a store that nothing was put into."""
        assert await listed(store) == []

    @pytest.mark.parametrize("place", ["../../etc/passwd", "/etc/passwd", "aa/../../b", "", "AA/" + "0" * 65])
    async def test_a_reference_that_could_lead_elsewhere_is_refused(
        self, store: ClaimStore, place: str
    ) -> None:
        """A forged record reads, writes and deletes nothing."""
        for call in (store.get(place, 10), store.put(place, b"x"), store.delete(place)):
            with pytest.raises(InvalidRecord, match="form of a reference"):
                await call

    async def test_the_check_leaves_nothing_behind(self, store: ClaimStore) -> None:
        """A store that can be written says so, and holds no more afterwards."""
        await store.check()

        assert await listed(store) == []
