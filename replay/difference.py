"""Where two decisions first differ, field by field in the order of the record."""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass

from replay.cases import Case
from replay.remake import Raised
from schemas.decision import Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field of a decision that came out another way; `how` says under what circumstances."""

    request_id: str
    partition: int
    offset: int
    field: str
    logged: str
    now: str
    inputs: str
    policy_hash: str
    how: str

    def __str__(self) -> str:
        """Return it as one sentence."""
        return (
            f"the decision of request {self.request_id} (decisions, partition {self.partition}, offset "
            f"{self.offset}) was not made again {self.how}: {self.field} was {self.logged} and is now "
            f"{self.now}; inputs: {self.inputs}; policy {self.policy_hash[:12]}"
        )


def difference(case: Case, now: Decision | Raised, how: str) -> Difference:
    """Return how *now* differs from the logged decision of *case*; *how* it was made again."""
    if isinstance(now, Raised):
        path, logged, made = "core", "a decision", f"an exception ({now.error})"
    else:
        path, logged, made = _first(case.decision.core, now.core, "core") or ("core", "itself", "not")
    return Difference(
        case.decision.request_id.hex(),
        case.partition,
        case.offset,
        path,
        logged,
        made,
        case.inputs,
        case.decision.core.policy_hash,
        how,
    )


def _first(logged: object, now: object, path: str) -> tuple[str, str, str] | None:
    if dataclasses.is_dataclass(logged) and type(logged) is type(now):
        pairs = [
            (f"{path}.{f.name}", getattr(logged, f.name), getattr(now, f.name))
            for f in dataclasses.fields(logged)
        ]
    elif isinstance(logged, tuple) and isinstance(now, tuple | list):
        if len(logged) != len(now):
            return path, repr(logged), repr(tuple(now))
        pairs = [(f"{path}[{i}]", *values) for i, values in enumerate(zip(logged, now, strict=True))]
    else:
        return None if _same(logged, now) else (path, repr(logged), repr(now))
    return next((found for name, one, other in pairs if (found := _first(one, other, name))), None)


def _same(logged: object, now: object) -> bool:
    """Tell whether two leaves encode alike: NaN is NaN, and 0.0 is not -0.0."""
    if isinstance(logged, float) and isinstance(now, float | int):
        return struct.pack("<d", logged) == struct.pack("<d", now)
    return logged == now
