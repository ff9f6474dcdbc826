"""Logs for the tests of replay, built with the real records and the real decision function.

Run as ``python -m tests.replay.logs DIR N [DECIDER]`` to keep a log of N decisions on disk.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Iterator

from agents.decision import facts_of
from agents.dispatch import dispatch
from agents.policy import Policy
from replay.remake import DECIDER, decider_of, load_plugins
from schemas.codec import Codec
from schemas.completion import Completion, Result
from schemas.decision import Decision, DecisionMeta, Input
from schemas.envelope import Envelope
from schemas.identity import Origin, body_digest, custom_request_id
from schemas.job import AttemptEnded, AttemptStarted, Job
from schemas.logdir import LogWriter
from schemas.request import Request
from schemas.sealed import Body, seal_plainly
from schemas.signal import Observation, Observations, SignalSet
from schemas.topics import attempts_topic, full_name, jobs_topic, signals_topic

POLICY_YAML = """
version: v0.3
providers:
  defaults: {default_model: small}
  models:
    - {name: large, backend_refs: [{name: north}]}
    - {name: small, backend_refs: [{name: south}]}
    - {name: tiny, backend_refs: [{name: south}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [python, function]}
      - {name: urgent, operator: OR, keywords: [urgent]}
    embeddings:
      - {name: maths, threshold: 0.5, candidates: [solve this equation]}
  decisions:
    - name: code-help
      priority: 20
      rules:
        operator: AND
        conditions:
          - {type: keyword, name: code}
          - operator: NOT
            conditions: [{type: embedding, name: maths}]
      modelRefs: [{model: large, weight: 3}, {model: small, weight: 1}, {model: tiny, weight: 2}]
      algorithm: {type: weighted}
    - name: maths
      priority: 10
      rules:
        operator: OR
        conditions:
          - {type: embedding, name: maths, on_unknown: fail_request}
          - {type: keyword, name: urgent}
      modelRefs: [{model: large}, {model: tiny}]
"""
PARTITIONS = 4
START = 1_790_000_000_000
PROMPT = b"my secret prompt"
ANSWER = b"the secret answer"


def policy() -> Policy:
    """Return the policy of these logs, as a worker reads it back: from its normal form."""
    load_plugins()
    return Policy.loads(Policy.parse(POLICY_YAML).normal_form)


class LogBuilder:
    """Appends records as the topology would have, partition by partition, with made-up signals."""

    def __init__(self, decider: str = DECIDER, codec: Codec | None = None) -> None:
        self.policy = policy()
        self.envelopes: list[Envelope] = []
        self._codec = codec or Codec()
        self._decide = decider_of(decider)
        self._random = random.Random(7)
        self._next: dict[tuple[str, int], int] = {}
        self._clock = itertools.count(START, 2)

    @property
    def policies(self) -> dict[str, str]:
        """The policies of the log, as its manifest has them."""
        return {self.policy.hash: self.policy.normal_form}

    def append(self, topic: str, partition: int, record: object, key: bytes = b"") -> int:
        """Append *record* and return its offset; offsets have gaps, as a compacted topic's do."""
        offset = self._next.get((topic, partition), 0)
        self._next[topic, partition] = offset + self._random.choice((1, 1, 1, 2))
        value = record if isinstance(record, bytes) else self._codec.encode(record)
        self.envelopes.append(Envelope(topic, partition, offset, next(self._clock), key, value))
        return offset

    def request(self, number: int, model: str = "auto") -> tuple[Request, Origin]:
        """Append the request of line *number*, which asks for *model*."""
        request_id = custom_request_id("acme", "nightly", f"line-{number}")
        body = Body(len(PROMPT), body_digest("acme", PROMPT), seal_plainly(PROMPT))
        now = next(self._clock)
        request = Request(
            request_id,
            "acme",
            "batch",
            body,
            "/v1/chat/completions",
            model,
            now,
            now + 60_000,
            now + 120_000,
            self.policy.hash,
            str(self.policy.recipe_for(model)),
            run="nightly",
            custom_id=f"line-{number}",
            line=number,
            subject=seal_plainly(PROMPT),
            headers=seal_plainly(PROMPT),
        )
        partition = number % PARTITIONS
        return request, Origin(partition, self.append("requests", partition, request, request_id))

    def signals(self, request: Request, origin: Origin) -> tuple[list[tuple[str, SignalSet]], list[Input]]:
        """Append made-up SignalSets of the demanded roles; one in sixteen embeddings failed."""
        draw = self._random
        similarity = draw.random()
        failed = draw.random() < 1 / 16
        maths = Observation("embedding", "maths", "", similarity >= 0.5, similarity, similarity, "ok", "")
        broken = maths._replace(matched=False, confidence=math.nan, value=math.nan, status="failed")
        rows = {
            "embedding": [broken if failed else maths],
            "heuristics": [
                Observation("keyword", name, "", draw.random() < 0.5, math.nan, math.nan, "ok", "")
                for name in ("code", "urgent")
            ],
        }
        sets = []
        inputs = []
        for role, observed in rows.items():
            found = SignalSet(
                request.request_id,
                origin,
                role,
                self.policy.hash,
                "",
                Observations.of(observed),
                START,
                250,
                ("encoder",) if role == "embedding" else (),
                ("1",) if role == "embedding" else (),
            )
            offset = self.append(signals_topic(role), origin.partition, found)
            sets.append((role, found))
            inputs.append(Input(role, offset))
        return sets, inputs

    def decision(
        self, request: Request, origin: Origin, sets: list[tuple[str, SignalSet]], inputs: list[Input]
    ) -> Decision:
        """Decide and append the Decision."""
        core = self._decide(
            self.policy,
            recipe=request.recipe,
            request_id=request.request_id,
            sets=sets,
            facts=facts_of(request.requested_model),
        )
        decision = Decision(
            request.request_id, origin, core, DecisionMeta(tuple(inputs), next(self._clock), 120)
        )
        self.append("decisions", origin.partition, decision, request.request_id)
        return decision

    def decided(self, number: int) -> tuple[Request, Origin, Decision]:
        """Append line *number* from its request to its decision."""
        request, origin = self.request(number)
        sets, inputs = self.signals(request, origin)
        return request, origin, self.decision(request, origin, sets, inputs)

    def answered(self, number: int) -> tuple[Request, Decision]:
        """Append line *number* from its request to its result, with one attempt."""
        request, origin, decision = self.decided(number)
        job = dispatch(request, decision, START)
        if isinstance(job, Result):
            self.append("results", origin.partition, job)
        elif isinstance(job, Job):
            self._work(request, origin, job)
        return request, decision

    def _work(self, request: Request, origin: Origin, job: Job) -> None:
        partition, ledger = origin.partition, attempts_topic(job.provider)
        offset = self.append(jobs_topic(job.provider), partition, job)
        call = (job.request_id, origin, 0, 0, 0, job.provider, job.model)
        now = next(self._clock)
        self.append(ledger, partition, AttemptStarted(*call, "w1", now, 60_000, offset))
        answer = seal_plainly(ANSWER)
        usage = (12, 30, 0.0005, "p1", math.nan, 90.0)
        completion = Completion(*call, job.model, 200, "stop", *usage, now, request.policy_hash, answer)
        self.append("completions", partition, completion)
        result = Result(
            request.request_id,
            "acme",
            200,
            "",
            "",
            job.provider,
            job.model,
            job.decision,
            0,
            0.0005,
            now + 91,
            request.accepted_at,
            request.policy_hash,
            origin,
            "nightly",
            request.custom_id,
            request.line,
            answer,
        )
        self.append("results", partition, result)
        self.append(ledger, partition, AttemptEnded(*call, "w1", now + 92, "ok", 200, ""))


def kept(folder: str, envelopes: Iterator[Envelope] | list[Envelope], policies: dict[str, str]) -> None:
    """Write *envelopes* as a log on disk at *folder*."""
    with LogWriter(folder, "cluster-1", "signalbox") as writer:
        for envelope in envelopes:
            writer.append(envelope)
        writer.close(policies)


def folder_of(topic: str) -> str:
    """Return the name of *topic*'s folder in such a log."""
    return full_name("signalbox", topic)


def main(folder: str, count: str, decider: str = DECIDER) -> None:
    """Keep a log of *count* decisions at *folder*."""
    builder = LogBuilder(decider)
    for number in range(int(count)):
        builder.decided(number)
    kept(folder, builder.envelopes, builder.policies)


if __name__ == "__main__":
    main(*sys.argv[1:])
