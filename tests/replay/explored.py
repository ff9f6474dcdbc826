"""A log of `signalbox run` under a randomised policy, rated with rewards whose means are known.

Half of the requests match the keyword `code`; what a rating is worth depends on that, on the model and on
the user, so that the value of any policy over these models is known.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.codec import Codec
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.logdir import LogDir, LogWriter
from schemas.topics import DECISIONS, FEEDBACK

USERS = 151
MEANS: Mapping[tuple[bool, str], float] = {
    (True, "north-large"): 0.9,
    (True, "north-small"): 0.2,
    (False, "north-large"): 0.6,
    (False, "north-small"): 0.5,
}
ROOT = Path(__file__).resolve().parents[2]


def policy(code: float, rest: float) -> str:
    """Return a policy that sends *code* of the code requests, *rest* of the others, to the large model."""
    return f"""
version: v0.3
providers:
  defaults: {{default_model: north-small}}
  models:
    - name: north-large
      pricing: {{prompt_per_1m: 3.0, completion_per_1m: 12.0}}
      backend_refs: [{{name: north}}]
    - name: north-small
      pricing: {{prompt_per_1m: 0.3, completion_per_1m: 1.0}}
      backend_refs: [{{name: north}}]
routing:
  signals:
    keywords:
      - {{name: code, operator: OR, keywords: [python]}}
      - {{name: text, operator: OR, keywords: [poem]}}
  decisions:
    - name: code
      priority: 20
      rules: {{type: keyword, name: code}}
      modelRefs: [{{model: north-large, weight: {code}}}, {{model: north-small, weight: {1 - code}}}]
      algorithm: {{type: weighted}}
    - name: rest
      priority: 10
      rules: {{operator: NOT, conditions: [{{type: keyword, name: code}}]}}
      modelRefs: [{{model: north-large, weight: {rest}}}, {{model: north-small, weight: {1 - rest}}}]
      algorithm: {{type: weighted}}
"""


@dataclass(frozen=True, slots=True)
class Rating:
    """How a request is rated: what reward its decision gets, and with which probability it is observed."""

    reward: float
    observation: float = math.nan
    shown: bool = True
    after_ms: int = 1000
    metric: str = "quality"


Rate = Callable[[Decision, np.random.Generator], Rating]


def run(folder: Path, logging: str, requests: int) -> Path:
    """Run *requests* requests of `USERS` users under policy *logging*; return the kept log."""
    lines = [_line(number) for number in range(requests)]
    (folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "policy.yaml").write_text(logging)
    command = [sys.executable, "-m", "signalbox", "run", str(folder / "requests.jsonl")]
    command += ["--policy", str(folder / "policy.yaml"), "--out", str(folder / "out.jsonl")]
    command += ["--keep-log", str(folder / "log")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "log"


def _line(number: int) -> dict[str, object]:
    text = f"write python number {number}" if number % 2 else f"write a poem number {number}"
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "headers": {"x-authz-user-id": f"user-{number % USERS}"},
        "body": {"model": "auto", "messages": [{"role": "user", "content": text}]},
    }


def decisions(log: LogDir) -> Iterator[Decision]:
    """Yield every decision of *log*."""
    codec = Codec(log.schemas().values(), compiled=True)
    for envelope in log.read(DECISIONS):
        yield codec.decode_as(Decision, envelope.value)


def plain(decision: Decision, rng: np.random.Generator) -> Rating:
    """Return a rating with the known mean and noise of 0.3."""
    return Rating(MEANS[decision.core.decision == "code", decision.core.chosen] + 0.3 * rng.normal())


def rated(source: Path, folder: Path, rate: Rate = plain, seed: int = 1) -> Path:
    """Copy the log at *source* to *folder* with one rating for each decision; return *folder*."""
    log, rng = LogDir(source), np.random.default_rng(seed)
    codec = Codec()
    with LogWriter(str(folder), log.manifest.cluster_id, log.manifest.prefix) as writer:
        for topic, partitions in log.topics().items():
            for partition in range(partitions):
                for envelope in log.read(topic, partition):
                    writer.append(envelope)
        offsets: dict[int, int] = {}
        for decision in decisions(log):
            rating = rate(decision, rng)
            if not rating.shown:
                continue
            partition = decision.origin.partition
            offset = offsets[partition] = offsets.get(partition, -1) + 1
            arrived = decision.meta.decided_at + rating.after_ms
            record = Feedback(
                decision.request_id, "judge", rating.metric, rating.reward, rating.observation, arrived
            )
            value = codec.encode(record)
            writer.append(Envelope(FEEDBACK, partition, offset, arrived, decision.request_id, value))
        writer.close(log.policies())
    return folder


def worth(code: float, rest: float) -> float:
    """Return the value of `policy(code, rest)`: half of the requests are code."""
    per_kind = [
        share * MEANS[kind, "north-large"] + (1 - share) * MEANS[kind, "north-small"]
        for kind, share in ((True, code), (False, rest))
    ]
    return sum(per_kind) / 2
