"""A world with the whole topology over the in-memory log, and lines to submit into it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.errors import CallTimeout
from agents.policy import Policy
from agents.ports import HttpReply
from infra.simulated_llm.in_process import InProcess
from infra.simulated_llm.profile import Profile, parse
from streams.app import Ports, load_registries
from streams.batch import BatchOptions, Submission, submit, wait, write_results
from streams.runners import World
from streams.settings import wall_clock
from streams.single import single_process
from streams.worker import no_classifier

POLICY = """
version: v0.3
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: north}]}
    - {name: coder, backend_refs: [{name: north}]}
routing:
  signals:
    keywords: [{name: code, operator: OR, keywords: [Python]}]
  decisions:
    - {name: code, priority: 1, rules: {type: keyword, name: code}, modelRefs: [{model: coder}]}
global:
  router: {auto_model_names: [auto, draft]}
"""
PROFILE = """
providers:
  north:
    models:
      small: {length: {median: 4}}
      coder: {length: {median: 4}}
"""


def profile() -> Profile:
    """Return a provider that answers at once and never fails."""
    return parse(PROFILE, "test profile")


def policy() -> Policy:
    """Return a policy with one keyword, two models and a default."""
    load_registries()
    return Policy.parse(POLICY, "test policy")


def line(custom_id: str | None = None, text: str = "hello", **more: Any) -> dict[str, Any]:
    """Return a batch line; *more* goes into its body."""
    found = {"method": "POST", "url": "/v1/chat/completions"}
    body = {"messages": [{"role": "user", "content": text}], **more}
    return {**found, **({} if custom_id is None else {"custom_id": custom_id}), "body": body}


def batch_file(folder: Path, lines: Sequence[bytes | dict[str, Any]], name: str = "in.jsonl") -> Path:
    """Write *lines*, bytes as they are, and return the file."""
    path = folder / name
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
    return path


@asynccontextmanager
async def topology() -> AsyncIterator[World]:
    """Run every role; no test gets past a role that fails."""
    failures: list[BaseException] = []
    complete = InProcess(profile(), 0, reply=HttpReply, timed_out=CallTimeout)
    ports = Ports(no_classifier, complete)
    async with single_process(
        policy(), ports, wall_clock, failed=lambda _stage, error: failures.append(error)
    ) as world:
        yield world
    assert failures == []


async def routed(
    world: World, file: Path, options: BatchOptions | None = None
) -> tuple[Submission, list[dict[str, Any]]]:
    """Submit *file*, wait for it, and return its output lines."""
    submission = await submit(world, file, policy(), options or BatchOptions())
    await wait(world, submission)
    out = file.with_suffix(".out")
    await write_results(world, submission, out)
    return submission, [json.loads(row) for row in out.read_bytes().splitlines()]
