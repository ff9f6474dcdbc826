"""The claim check: bodies too large for a record are kept elsewhere, and fetched before they are looked at.

Agents see bodies only. What a record refers to is durable before the record is written. Fetching is
bounded in concurrency, cached within a bound of bytes, and asked again within a budget.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import stamina

from agents.admission import MAX_BODY
from agents.content import at_hand
from agents.errors import InvalidRecord, Refused, StoreFull, Unavailable
from schemas.claims import NONCE_BYTES, ClaimBroken, claimed, new_reference, opened
from schemas.completion import Completion, Result
from schemas.envelope import Envelope
from schemas.identity import body_digest
from schemas.job import Job
from schemas.request import Request
from schemas.sealed import Body, Sealed, seal_plainly, unseal
from streams.clients.claims import ClaimStore

INLINE_BYTES = 256 * 1024
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Bounds: bytes in a record, seconds of asking again, fetches at once, bytes cached and in a chunk."""

    inline_bytes: int = INLINE_BYTES
    budget_s: float = 10.0
    concurrency: int = 8
    cache_bytes: int = 32 * 1024 * 1024
    chunk_bytes: int = 64 * 1024 * 1024


class ClaimCheck:
    """Keeps and fetches what records claim, in *store*; without one, large bodies are refused."""

    def __init__(
        self,
        store: ClaimStore | None = None,
        limits: ClaimLimits | None = None,
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
    ) -> None:
        self.store = store
        self.limits = limits or ClaimLimits()
        self._nonce = nonce
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0

    async def check_in(self, request: Request) -> Request:
        """Return *request* as it is written: a large body is durable in the store when this returns.

        Raises `Refused` if the store is full or there is none, `Unavailable` once the budget is used up.
        """
        sealed = request.body.sealed
        if sealed is None or len(sealed.data) <= self.limits.inline_bytes:
            return request
        if self.store is None:
            raise Refused(
                "body_too_large",
                f"{len(sealed.data)} bytes are more than the {self.limits.inline_bytes} that a record takes, "
                "and no claim store is set (SIGNALBOX_CLAIMS)",
            )
        try:
            reference = await self._keep(request.request_id, sealed)
        except StoreFull as full:
            raise Refused("claim_store_full", str(full)) from None
        body = claimed(unseal(sealed), request.body.digest, reference, sealed)
        return replace(request, body=body)

    async def check_in_when_there_is_room(self, request: Request) -> Request:
        """Return *request* as `check_in` does, for a caller who is no longer there to be refused.

        A record of an inbox is accepted: a full store makes it wait, as one that is away does.
        Raises `Unavailable`.
        """
        try:
            return await self.check_in(request)
        except Refused as refused:
            if refused.code == "claim_store_full":
                raise Unavailable(refused.message) from refused
            raise

    async def check_in_answer(self, record: Any) -> Any:
        """Return *record* as it is written: a large answer of a Completion or Result is kept in the store.

        Raises `Unavailable` (a full store is no less to an answer that was paid for).
        """
        if not isinstance(record, Completion | Result) or record.answer is None:
            return record
        sealed = record.answer
        if len(sealed.data) <= self.limits.inline_bytes or self.store is None:
            return record
        try:
            reference = await self._keep(record.request_id, sealed)
        except StoreFull as full:
            raise Unavailable(str(full)) from full
        digest = body_digest(record.request_id.hex(), unseal(sealed))
        kept = claimed(unseal(sealed), digest, reference, sealed)
        return replace(record, answer=None, answer_claim=kept)

    async def body_of(self, record: Request | Job) -> bytes:
        """Return the plain body; raises `InvalidRecord` if it is not what the record claims.

        Raises `Unavailable` once the budget is used up.
        """
        if record.body.claim is None:
            return at_hand(record.body)
        return await self._fetch(record.body, record.tenant)

    async def answered(self, result: Result) -> Result:
        """Return *result* with its answer at hand; raises as `body_of`."""
        if result.answer_claim is None:
            return result
        data = await self._fetch(result.answer_claim, result.request_id.hex())
        return replace(result, answer=seal_plainly(data), answer_claim=None)

    def fits(self, decoded: Sequence[tuple[Envelope, Any]]) -> bool:
        """Tell whether the claimed bodies of *decoded* may be in memory at once."""
        claimed_bytes = sum(record.body.size for _, record in decoded if record.body.claim is not None)
        return len(decoded) == 1 or claimed_bytes <= self.limits.chunk_bytes

    async def at_hand(self, decoded: Sequence[tuple[Envelope, Any]]) -> Sequence[tuple[Envelope, Any]]:
        """Return *decoded* with the claimed bodies of its requests fetched.

        A body that the store did not give within the budget stays claimed, and what looks at it says so.
        Raises `InvalidRecord` for a body that is not what its record claims.
        """
        if all(record.body.claim is None for _, record in decoded):
            return decoded
        return await asyncio.gather(*[self._with_body(*pair) for pair in decoded])

    async def _with_body(self, envelope: Envelope, request: Request) -> tuple[Envelope, Request]:
        if request.body.claim is None:
            return envelope, request
        try:
            data = await self._fetch(request.body, request.tenant)
        except Unavailable:
            return envelope, request
        return envelope, replace(request, body=replace(request.body, sealed=seal_plainly(data), claim=None))

    async def _keep(self, request_id: bytes, sealed: Sealed) -> str:
        reference = new_reference(request_id, self._nonce())
        async with self._slots:
            await self._again(lambda store: store.put(reference, sealed.data))
        return reference

    async def _fetch(self, body: Body, scope: str) -> bytes:
        if body.claim is None or body.size > MAX_BODY:
            raise InvalidRecord(f"a claim of {body.size} bytes is more than the {MAX_BODY} of any body")
        reference = body.claim.uri
        # Sealing may add to the plain size, but never as much as this.
        limit = body.size + 4096
        async with self._slots:
            kept = self._cache.get(reference)
            if kept is None:
                kept = await self._again(lambda store: store.get(reference, limit))
                self._remember(reference, kept)
        try:
            return await asyncio.to_thread(opened, body, scope, kept)
        except ClaimBroken as error:
            raise InvalidRecord(str(error)) from error

    def _remember(self, reference: str, data: bytes) -> None:
        if reference in self._cache or len(data) > self.limits.cache_bytes:
            return
        self._cache[reference] = data
        self._cached += len(data)
        while self._cached > self.limits.cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)

    async def _again(self, ask: Callable[[ClaimStore], Any]) -> Any:
        """Ask the store until it answers or the budget is used up."""
        if self.store is None:
            raise Unavailable(
                "no claim store is set, so claimed bodies cannot be fetched; set SIGNALBOX_CLAIMS"
            )
        attempts = stamina.retry_context(
            on=Unavailable,
            attempts=None,
            timeout=self.limits.budget_s,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_LONGEST_WAIT_S,
            wait_jitter=_FIRST_WAIT_S,
        )
        async for attempt in attempts:
            with attempt:
                return await ask(self.store)
        raise Unavailable("the claim store was not asked: no time was left")
