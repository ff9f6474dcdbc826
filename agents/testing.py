"""Fakes that ship with the agents: hash vectors for a classifier, a scripted provider, requests.

Pure: what they answer follows from their script and arguments, so two drivers given equal fakes must
emit equal records. They pass the same checks as what they stand in for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson

import agents.providers
import agents.selectors
import agents.signals
from agents.admission import Admission, Line
from agents.errors import CallTimeout, Unavailable
from agents.policy import Policy
from agents.ports import HttpCall, HttpReply, Inference
from agents.providers import provider
from agents.selectors import selector
from agents.signals import signal
from schemas.request import Request

NAN = float("nan")
DIMENSIONS = 16


def policy_of(yaml: str) -> Policy:
    """Return the policy in *yaml* as a worker reads it back, with every plugin loaded."""
    signal.load(agents.signals)
    selector.load(agents.selectors)
    provider.load(agents.providers)
    return Policy.loads(Policy.parse(yaml).normal_form)


def request_of(policy: Policy, name: str, text: str, *, now: int, model: str = "") -> Request:
    """Return the request of a batch line *name* with one user turn *text*, admitted at *now* (ms)."""
    body = orjson.dumps({"messages": [{"role": "user", "content": text}], "model": model or "auto"})
    line = Line(1, name, "/v1/chat/completions", body, model, {})
    return Admission(policy, "default", now, "run").batch(line)


def vector_of(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the unit vector that stands for *text*: equal texts alone are close."""
    digest = hashlib.sha256(text.encode()).digest()[:DIMENSIONS]
    raw = np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
    unit: np.ndarray[tuple[int], np.dtype[np.float32]] = raw / np.linalg.norm(raw)
    return unit


@dataclass(slots=True)
class HashClassifier:
    """An `Infer` port; *down* makes every call fail, *delay_s* makes it take its time.

    A text in *poison* makes it raise ValueError, as a client with a defect would.
    """

    version: str = "1"
    down: bool = False
    poison: frozenset[str] = frozenset()
    delay_s: float = 0.0
    calls: int = 0

    async def __call__(self, classifier: str, texts: Sequence[str], timeout_s: float) -> Inference:
        """Return one row per text; raises `Unavailable` while down."""
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        if self.down:
            message = f"classifier {classifier!r} is down (scripted; {timeout_s:g} s given)"
            raise Unavailable(message)
        if not self.poison.isdisjoint(texts):
            message = "a text that the client cannot encode (scripted)"
            raise ValueError(message)
        return Inference(np.stack([vector_of(text) for text in texts]), self.version)


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer; status 0 is no connection, -1 no answer within the timeout.

    *late* is the status of the answer that comes after its timeout, once it is let; 0 for none.
    """

    status: int = 200
    retry_after_s: float = NAN
    late: int = 0


OK, REFUSED, TIMEOUT = Answer(), Answer(0), Answer(-1)


@dataclass(slots=True)
class ScriptedProvider:
    """A `Complete` port in OpenAI's dialect: each model answers by its script, then with success.

    `calls` are (provider, model, idempotency key) in order; *gate*, if set, holds every call.
    """

    scripts: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    _left: dict[str, Iterator[Answer]] = field(default_factory=dict)
    _late: list[tuple[asyncio.Future[HttpReply], HttpReply]] = field(default_factory=list)

    def let_late_answers_come(self) -> None:
        """Answer the calls that timed out and were to be answered late."""
        for future, reply in self._late:
            future.set_result(reply)
        self._late.clear()

    async def __call__(self, name: str, call: HttpCall) -> HttpReply:
        """Return what the script says; raises `CallTimeout` or `Unavailable` where it says so."""
        asked = orjson.loads(call.body)
        model, key = str(asked["model"]), call.headers["idempotency-key"]
        self.calls.append((name, model, key))
        answer = next(self._left.setdefault(model, iter(self.scripts.get(model, ()))), OK)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if answer.status < 0:
            raise CallTimeout(
                f"{name}: no answer within {call.timeout_s:g} s (scripted)", self._later(answer, model, key)
            )
        if answer.status == 0:
            raise Unavailable(f"{name}: no connection (scripted)")
        return _reply(answer, model, key)

    def _later(self, answer: Answer, model: str, key: str) -> asyncio.Future[HttpReply] | None:
        if not answer.late:
            return None
        future: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        self._late.append((future, _reply(Answer(answer.late), model, key)))
        return future


def _reply(answer: Answer, model: str, key: str) -> HttpReply:
    said = answer.retry_after_s == answer.retry_after_s
    headers = {"retry-after": f"{answer.retry_after_s}"} if said else {}
    if answer.status >= 400:  # noqa: PLR2004 - HTTP's first error
        refusal = {"error": {"message": "scripted", "type": "scripted", "code": None}}
        return HttpReply(answer.status, headers, orjson.dumps(refusal), 0.0, NAN)
    message = {"role": "assistant", "content": f"answer to {key}"}
    reply = {
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 11},
    }
    return HttpReply(answer.status, headers, orjson.dumps(reply), 0.0, NAN)
