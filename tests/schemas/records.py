"""Records of every class: arbitrary ones for hypothesis, and one telling sample of each.

Run as ``python -m tests.schemas.records`` to write the samples as golden examples, each with the schema
that its record is written with today. What earlier ids wrote is kept in `tests.histories`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from hypothesis import strategies as st

from schemas.codec import Codec, todays
from schemas.completion import Completion, Result
from schemas.control import (
    Paused,
    PolicyActivated,
    PolicyPublished,
    PolicyShadowed,
    Resumed,
    RunOpened,
    RunSubmitted,
    TopicPosition,
)
from schemas.dead_letter import DeadLetter, Header, LetterClosed
from schemas.decision import Decision, DecisionCore, DecisionMeta, Facts, Input, PlanStep, Trace
from schemas.feedback import Feedback
from schemas.identity import Origin, body_digest, custom_request_id
from schemas.job import AttemptEnded, AttemptStarted, Following, Job
from schemas.request import Request
from schemas.retry import Retry
from schemas.sealed import Body, Claim, seal_plainly
from schemas.shape import hints_of
from schemas.signal import Observation, Observations, SignalSet

EXAMPLES = Path(__file__).parents[2] / "schemas" / "avro" / "examples"

_PRIMITIVES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(),
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
}


def records(cls: type) -> st.SearchStrategy[Any]:
    """Return a strategy of any *cls* that its types allow."""
    return st.builds(cls, **{name: _values(hint) for name, hint in hints_of(cls).items()})


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Annotated:
        size = get_args(hint)[1].size
        return st.binary(min_size=size, max_size=size)
    if get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [h for h in get_args(hint) if h is not type(None)]
        return st.none() | _values(inner)
    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0]), max_size=4).map(tuple)
    if dataclasses.is_dataclass(hint):
        return records(typing.cast("type", hint))
    return _PRIMITIVES[hint]


def readable(value: Any) -> Any:
    """Return *value* as JSON shows it: bytes as hex digits, NaN and infinities by name."""
    if dataclasses.is_dataclass(value):
        return {f.name: readable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [readable(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _observed(kind: str, name: str, label: str, value: float, reason: str) -> Observation:
    status = "failed" if reason else "ok"
    return Observation(kind, name, label, not reason, value / 2, value, status, reason)


_ID = custom_request_id("acme", "nightly", "line-7")
_HASH = "5f" * 32
_AT = 1_790_000_000_000
_ORIGIN = Origin(3, 4_711)
_TEXT = b'{"model":"auto","messages":[{"role":"user","content":"What is a monoid?"}]}'
_BODY = Body(len(_TEXT), body_digest("acme", _TEXT), seal_plainly(_TEXT))
_CLAIMED = Body(
    2_000_000,
    body_digest("acme", b""),
    claim=Claim("s3://bodies/3/4711", "key-1", "aes-256-gcm", b"\x01" * 12),
)
_PLAN = (PlanStep("north", "large", 3, 30_000), PlanStep("south", "small", 2, 10_000))
_JOB = (_ID, _ORIGIN, 0, 0, 1, "north", "large")

SAMPLES: tuple[Any, ...] = (
    Request(
        _ID,
        "acme",
        "batch",
        _CLAIMED,
        "/v1/chat/completions",
        "auto",
        _AT,
        _AT + 43_200_000,
        _AT + 86_400_000,
        _HASH,
        "default",
        run="nightly",
        custom_id="line-7",
        line=7,
        subject=seal_plainly(b"user 12"),
        roles=("analyst", "beta"),
        data_class="internal",
        residency="eu",
        headers=seal_plainly(b'{"x-team":"search"}'),
        priority=-1,
    ),
    SignalSet(
        _ID,
        _ORIGIN,
        "heuristics",
        _HASH,
        "default",
        Observations.of(
            [
                _observed("keyword", "code", "code", 2.0, ""),
                _observed("embedding", "maths", "", math.nan, "call_timeout"),
            ]
        ),
        _AT + 4,
        312,
        ("minilm",),
        ("1",),
    ),
    Decision(
        _ID,
        _ORIGIN,
        DecisionCore(
            _HASH,
            "default",
            "routed",
            "",
            "code-help",
            Trace(
                ("and", "leaf", "not", "leaf"),
                ("", "keyword:code", "", "embedding:maths"),
                (1, 1, 1, 0),
                (0.9, 1.0, 0.9, 0.1),
                (0, 1, 1, 2),
            ),
            ("large", "small"),
            (0.75, 0.25),
            (0.75, 0.25),
            "large",
            _PLAN,
            ("keyword:code",),
            ("embedding:maths",),
            "weighted",
            "spring",
            0.625,
            Facts(("price_version",), ("2026-03",)),
        ),
        DecisionMeta((Input("heuristics", 4_698), Input("embedding", 4_702)), _AT + 9, 180, ("language",)),
        _ID,
    ),
    Job(
        *_JOB,
        _PLAN,
        0,
        1,
        "code-help",
        _BODY,
        "/v1/chat/completions",
        30_000,
        _AT,
        _AT + 86_400_000,
        _AT,
        _HASH,
        "default",
        "acme",
        run="nightly",
        custom_id="line-7",
        line=7,
        priority=2,
    ),
    AttemptStarted(*_JOB, "worker-2", _AT + 14, 30_000, 902),
    AttemptEnded(
        *_JOB,
        "worker-2",
        _AT + 950,
        "retry",
        429,
        "rate_limited",
        Following(2, 0, "north", "large", 1, 30_000, _AT + 1_950),
        _AT + 1_950,
        "eu",
    ),
    Completion(
        *_JOB,
        "large-2026-01",
        200,
        "stop",
        12,
        -1,
        math.nan,
        "2026-03",
        181.5,
        912.25,
        _AT + 949,
        _HASH,
        seal_plainly(b'{"choices":[]}'),
        ("cache:miss",),
        late=True,
    ),
    Result(
        _ID,
        "acme",
        200,
        "",
        "",
        "north",
        "large",
        "code-help",
        1,
        0.0021,
        _AT + 951,
        _AT,
        _HASH,
        _ORIGIN,
        "nightly",
        "line-7",
        7,
        seal_plainly(b'{"choices":[]}'),
    ),
    Feedback(_ID, "judge-1", "helpful", 0.5, math.nan, _AT + 5_000, _ORIGIN, seal_plainly(b"good enough")),
    DeadLetter(
        "decision",
        "InvalidRecord",
        "schema id 99 is not a committed one",
        "signalbox.requests.v1",
        3,
        4_712,
        _AT,
        3,
        "",
        _AT + 30,
        None,
        b"\x00\xff",
        b"\x00\x00\x00\x00\x63 not ours",
        (Header("ce_type", b"request"),),
    ),
    PolicyPublished(_HASH, '{"decisions":[]}', "operator", _AT - 1_000),
    PolicyActivated(_HASH, "operator", "first policy", _AT - 900, "activated", "", "", "sha256:c0"),
    RunOpened("nightly", "acme", "c0" * 16, _AT - 10, (TopicPosition("requests", 3, 4_700),)),
    RunSubmitted("nightly", "acme", 8, 6, 1, 1, _AT + 3),
    Retry(
        _ID,
        _ORIGIN,
        "jobs.north.batch",
        3,
        _AT + 30_000,
        _AT + 2,
        "provider.north",
        "rate_limited",
        _ID,
        b"\x00\x00\x00\x00\x04 a job",
        (Header("ce_type", b"signalbox.Job"),),
    ),
    Paused("provider", "north", "ada@ops-1", "their status page is red", _AT + 5),
    Resumed("provider", "north", "ada@ops-1", "green again", _AT + 900),
    PolicyShadowed(_HASH, "operator", "a week beside", _AT - 800, "signed", "sha256:c0"),
    LetterClosed(3, 17, "redriven", "ada@ops-1", _AT + 1_000, "requests", 3, 4_800, _ID),
)


def main() -> None:
    """Write one example per record class."""
    codec = Codec()
    ids = todays()
    EXAMPLES.mkdir(exist_ok=True)
    for record in SAMPLES:
        name = type(record).__name__
        example = {
            "record": name,
            "schema_id": ids[name].schema_id,
            "fingerprint": ids[name].fingerprint,
            "value": readable(record),
            "wire": codec.encode(record).hex(),
        }
        (EXAMPLES / f"{name}.json").write_text(json.dumps(example, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
