"""The retry tiers: which one a record waits in, and when it goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.errors import CallTimeout, InvalidRecord, PolicyMissing, Refused, Unavailable
from agents.failures import VERBS, code_of_status, verb_of, verb_of_error
from agents.retry import DELAYS, IN_PROCESS_MS, TIERS, next_tier, parked, tier_for, wakes_at
from agents.topology import emit_for
from schemas.envelope import Envelope
from schemas.retry import Retry
from tests.agents.samples import NOW, job


def waiting(wait_ms: int) -> tuple[str, Retry] | None:
    """Return the tier and record of a job that must wait so long, None where it waits at home."""
    emit = parked(emit_for(job(not_before=NOW + wait_ms)), b"value", [("a", b"b")], NOW, "stage", "code")
    return None if emit is None else (emit.topic, emit.record)


def test_short_waits_stay_with_the_worker() -> None:
    """Up to two seconds nothing is written to a tier."""
    assert waiting(0) is None
    assert waiting(IN_PROCESS_MS) is None
    assert waiting(IN_PROCESS_MS + 1) is not None


def test_a_record_says_where_it_belongs() -> None:
    """Topic, partition, key, bytes and headers are those with which it would have been written."""
    found = waiting(25_000)
    assert found is not None
    tier, retry = found
    home = emit_for(job())

    assert tier == "retry.10s"
    assert (retry.topic, retry.partition, retry.key, retry.value) == (
        home.topic,
        home.partition,
        home.key,
        b"value",
    )
    assert [(h.key, h.value) for h in retry.headers] == [("a", b"b")]
    assert (retry.due_at, retry.parked_at, retry.stage, retry.code) == (NOW + 25_000, NOW, "stage", "code")


@given(st.integers(IN_PROCESS_MS + 1, 3 * 3_600_000))
def test_a_wait_ends_when_it_is_due_and_never_later(wait_ms: int) -> None:
    """Left tier after tier as heads wake, a record is home within the last second before it is due."""
    found = waiting(wait_ms)
    assert found is not None
    tier: str | None = found[0]
    now, hops = NOW, 0
    while tier is not None:
        envelope = Envelope(tier, 0, 0, now, None, b"", ())
        now = wakes_at(envelope, found[1])
        assert now <= found[1].due_at
        tier = next_tier(found[1], now)
        hops += 1

    assert 0 <= found[1].due_at - now < 1_000
    assert hops <= sum(10 for _ in TIERS)


@given(st.lists(st.integers(1_000, 10_000_000), min_size=2, max_size=30))
def test_a_tier_is_due_in_the_order_in_which_it_filled(waits: list[int]) -> None:
    """Records that are written one after the other into one tier wake one after the other."""
    woken: dict[str, int] = {}
    for second, wait_ms in enumerate(waits):
        now = NOW + second
        tier = tier_for(wait_ms)
        assert tier is not None
        retry = Retry(b"", job().origin, "t", 0, now + wait_ms, now, "s", "c")
        wakes = wakes_at(Envelope(tier, 0, second, now, None, b"", ()), retry)
        assert wakes == now + DELAYS[tier]
        assert woken.get(tier, 0) <= wakes
        woken[tier] = wakes


def test_every_status_has_a_verb() -> None:
    """Statuses become codes, codes become verbs; an unknown code is rejected rather than tried for ever."""
    verbs = {status: verb_of(code_of_status(status)) for status in range(400, 600)}

    assert {status for status, verb in verbs.items() if verb == "retry"} == {
        408,
        409,
        425,
        429,
        *range(500, 600),
    }
    assert {status for status, verb in verbs.items() if verb == "degrade"} == {402, 410, 413}
    assert verb_of("unheard of") == "reject"
    assert set(VERBS.values()) == {"retry", "degrade", "reject"}


def test_exceptions_have_a_verb_too() -> None:
    """What is away may come back; what is wrong stays wrong."""
    assert [verb_of_error(e) for e in (Unavailable(""), CallTimeout(""), PolicyMissing("x"))] == ["retry"] * 3
    assert [verb_of_error(e) for e in (InvalidRecord(""), Refused("c", "m"), KeyError())] == ["reject"] * 3
