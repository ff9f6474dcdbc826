"""Ratings into the log: each found with its request, and written beside the others of that request."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agents.ratings import Line
from agents.topology import Emit
from schemas.decision import Decision
from schemas.identity import Origin, partition_for
from schemas.topics import DECISIONS, FEEDBACK
from streams.log import Placed
from streams.runners import World
from streams.runs import decoded

NOT_FOUND = "request_not_found"
_UNACKED = 2000


@dataclass(slots=True)
class Given:
    """What became of a file: how many ratings the log acknowledged, and the lines that it did not take."""

    written: int = 0
    refused: list[Line] = field(default_factory=list)


async def origins_of(world: World, wanted: Collection[bytes]) -> Mapping[bytes, Origin]:
    """Return where those of *wanted* that were decided lie; reads `decisions` until all are found."""
    found: dict[bytes, Origin] = {}
    missing = set(wanted)
    if not missing:
        return found
    places = [(DECISIONS, p) for p in range(await world.log.partitions(DECISIONS))]
    async for envelope in world.log.read(await world.log.begins(places)):
        if envelope.key not in missing:
            continue
        record = decoded(world.codec, envelope.value)
        if isinstance(record, Decision):
            found[record.request_id] = record.origin
            missing.discard(record.request_id)
            if not missing:
                break
    return found


async def give(world: World, lines: Sequence[Line], *, look_up: bool) -> Given:
    """Write the ratings in *lines*; returns when the log has acknowledged them.

    With *look_up* a rating of a request that the log has no decision of is refused; without, ratings are
    taken on trust, and an archive cannot tell whose they are.
    """
    given = Given(refused=[line for line in lines if line.rating is None])
    ratings = [(line.number, line.rating) for line in lines if line.rating is not None]
    origins = await origins_of(world, {rating.request_id for _, rating in ratings}) if look_up else {}
    partitions = await world.log.partitions(FEEDBACK)
    unacked: list[Awaitable[Placed]] = []
    for number, rating in ratings:
        origin = origins.get(rating.request_id)
        if look_up and origin is None:
            given.refused.append(Line(number, None, NOT_FOUND, "the log holds no decision of this request"))
            continue
        place = partition_for(rating.request_id, partitions) if origin is None else origin.partition
        record = rating.feedback(world.now(), origin)
        unacked.append(await world.outbox.send(Emit(FEEDBACK, place, rating.request_id, record)))
        if len(unacked) >= _UNACKED:
            await _settle(given, unacked)
    await _settle(given, unacked)
    given.refused.sort(key=lambda line: line.number)
    return given


async def _settle(given: Given, unacked: list[Awaitable[Placed]]) -> None:
    for ack in unacked:
        await ack
        given.written += 1
    unacked.clear()
