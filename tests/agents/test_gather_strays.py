"""A gather parts with what claims a request that does not exist, and keeps its other promises."""

from agents.gather import GRACE_MS, Arrival, Gather

STAMP = 1_000


def gather_with(*origins: int, window: int = 1024) -> Gather:
    """Return a gather that has read records of input "s" that claim *origins*."""
    gather = Gather(("s",), window, {})
    gather.offer("s", [Arrival(at, STAMP, origin, "x") for at, origin in enumerate(origins)])
    return gather


def test_a_stray_is_taken_out_after_its_grace() -> None:
    """Inside the window it has a second; beyond it, where it holds its input up, none."""
    near, far = gather_with(500), gather_with(10**12)

    assert (near.strays_at(), far.strays_at()) == (STAMP + GRACE_MS, 0)
    assert near.strays(10, STAMP + GRACE_MS - 1) == []
    assert near.strays(10, STAMP + GRACE_MS) == [("s", 0)]
    assert far.strays(10, STAMP) == [("s", 0)]
    assert (near.strays_at(), far.strays_at(), near.held, far.held) == (None, None, 0, 0)


def test_what_is_ahead_of_its_request_is_no_stray() -> None:
    """A signal may be read before its request, for as long as there is such a request."""
    gather = gather_with(5)

    assert gather.strays(6, STAMP + 100 * GRACE_MS) == []


def test_no_commit_passes_what_lay_behind_a_stray() -> None:
    """The stray stopped the commit for its successors, too; they hold it until they are settled."""
    gather = gather_with(500, 5)
    assert gather.strays(10, STAMP + GRACE_MS) == [("s", 0)]
    requests = [Arrival(n, 0, n, "r", ("s",) if n == 5 else ()) for n in range(10)]
    gather.offer(Gather.REQUESTS, requests)
    for ready in gather.ready():
        if ready.origin != 5:
            gather.settle(ready.origin)

    assert gather.commits() == {Gather.REQUESTS: 5}
    gather.settle(5)
    assert gather.commits() == {Gather.REQUESTS: 10, "s": 2}
