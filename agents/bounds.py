"""What may be wrong with the bounds of a number: the checks that every predicate shares."""

from __future__ import annotations

from agents.rules import Predicate


def fault_of(predicate: Predicate) -> str | None:
    """Return why no number was meant by *predicate*, or None: no bound, two of a kind, an empty range."""
    low = [bound for bound in (predicate.gt, predicate.gte) if bound is not None]
    high = [bound for bound in (predicate.lt, predicate.lte) if bound is not None]
    if not low and not high:
        return "a predicate needs at least one of gt, gte, lt, lte"
    if len(low) > 1 or len(high) > 1:
        return "a predicate has gt or gte and lt or lte, not both of a kind"
    if low and high:
        closed = predicate.gte is not None and predicate.lte is not None
        if low[0] > high[0] or (low[0] == high[0] and not closed):
            return "no number lies between the bounds"
    return None
