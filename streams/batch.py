"""Batch files in and out: admit each line into a run, wait for what comes back, write a line for each.

A run is named by its caller or by the digest of tenant and file, so that a resubmission is the
same run and adds only what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from agents.admission import Admission, custom_id_of, partition_key, read_line
from agents.errors import ConfigError, InvalidRecord, Refused, Unavailable
from agents.policy import Policy
from agents.topology import Emit
from schemas.completion import Result
from schemas.control import RunOpened, RunSubmitted, TopicPosition
from schemas.identity import partition_for, run_name
from schemas.request import Request
from schemas.sealed import unseal
from schemas.topics import CONTROL_EVENTS, REQUESTS, jobs_topic, signals_topic
from streams.log import Placed
from streams.runners import World
from streams.runs import SUCCESS, Outcome, RunView, ends_of, find_run, follow, requests_in_log

_UNACKED = 2000
_BOM = b"\xef\xbb\xbf"
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One non-blank input line: the request it became, or why it became none."""

    line: int
    custom_id: str | None
    request_id: bytes | None
    code: str = ""
    message: str = ""


@dataclass(slots=True)
class Submission:
    """A submitted file; *acknowledged* are the requests that the log took now, in order."""

    view: RunView
    entries: list[Entry]
    acknowledged: list[bytes] = field(default_factory=list)

    @property
    def wanted(self) -> set[bytes]:
        """The ids of all accepted lines."""
        return {e.request_id for e in self.entries if e.request_id is not None}


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Whose file it is and under which name; `new_run` forces a run of its own."""

    tenant: str = "default"
    run: str | None = None
    new_run: bool = False


def raw_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over (line number from 1, bytes) of the non-blank lines; a byte-order mark is no content."""
    for number, raw in enumerate(content.removeprefix(_BOM).split(b"\n"), start=1):
        if raw.strip():
            yield number, raw.strip()


async def submit(world: World, path: Path, policy: Policy, options: BatchOptions) -> Submission:
    """Admit every line of *path* that the run does not hold yet; returns when all are acknowledged.

    Raises `ConfigError` if there is nothing to submit, or if no worker could serve the policy.
    """
    content = await asyncio.to_thread(read_content, path)
    await check_served(world, policy)
    run = _named(options.run) or run_name(options.tenant, content)
    if options.new_run:
        run = f"{run}-{secrets.token_hex(4)}"
    view = await find_run(world.log, world.codec, run, options.tenant)
    known: Mapping[bytes, bytes] = {}
    if view is None:
        view = await _open(world, run, options.tenant, content)
    else:
        known = await requests_in_log(world.log, world.codec, view)
    admission = Admission(policy, options.tenant, world.now(), run)
    submission = await _submit_lines(world, content, admission, view, known)
    await _close(world, submission, len(known))
    return submission


def read_content(path: Path) -> bytes:
    """Return what *path* holds; raises `ConfigError` if that is nothing."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if not content.removeprefix(_BOM).strip():
        raise ConfigError(f"{path} holds no line; a batch file has one JSON object a line")
    return content


async def check_served(world: World, policy: Policy) -> None:
    """Raise `ConfigError` if a topic that *policy* needs does not exist."""
    names = [jobs_topic(name) for name in policy.provider_names]
    names += [signals_topic(role) for role in policy.roles]
    for name in (REQUESTS, *names):
        if await world.log.partitions(name) == 0:
            raise ConfigError(
                f"topic {name!r} does not exist, so nobody would serve the policy; "
                "start the stack with this policy: signalbox up --workers --policy FILE"
            )


async def _open(world: World, run: str, tenant: str, content: bytes) -> RunView:
    positions = tuple(TopicPosition(*place) for place in await ends_of(world.log))
    digest = hashlib.sha256(content).hexdigest()
    opened = RunOpened(run, tenant, digest, world.now(), positions)
    await (await world.outbox.send(Emit(CONTROL_EVENTS, 0, run.encode(), opened)))
    return RunView(opened)


async def _submit_lines(
    world: World, content: bytes, admission: Admission, view: RunView, known: Mapping[bytes, bytes]
) -> Submission:
    submission = Submission(view, [])
    seen: dict[str, int] = {}
    partitions = await world.log.partitions(REQUESTS)
    unacked: list[tuple[bytes, Awaitable[Placed]]] = []
    for number, raw in raw_lines(content):
        try:
            line = read_line(number, raw)
            request = admission.batch(line)
            # Only a line that runs takes its name: what was refused leaves it to a corrected one.
            _first_of_its_name(line.custom_id, seen)
            _same_as_before(request, known)
            # Durable in the claim store before the record that refers to it is written.
            kept = request if request.request_id in known else await world.claims.check_in(request)
            if line.custom_id is not None:
                seen[line.custom_id] = number
        except Refused as refused:
            submission.entries.append(Entry(number, custom_id_of(raw), None, refused.code, refused.message))
            continue
        submission.entries.append(Entry(number, line.custom_id, request.request_id))
        if request.idempotency_key is not None:
            view.shared.add(request.request_id)
        if request.request_id in known:
            continue
        partition = partition_for(partition_key(request), partitions)
        ack = await world.outbox.send(Emit(REQUESTS, partition, request.request_id, kept))
        unacked.append((request.request_id, ack))
        if len(unacked) >= _UNACKED:
            await _settle(submission, unacked)
    await _settle(submission, unacked)
    return submission


def _named(run: str | None) -> str | None:
    if run is not None and not (run.isprintable() and len(run) <= _MAX_NAME):
        raise ConfigError(f"a run's name is at most {_MAX_NAME} printable characters")
    return run


def _same_as_before(request: Request, known: Mapping[bytes, bytes]) -> None:
    """Refuse another body under an id that the run holds: its result would be of the old one."""
    if known.get(request.request_id, request.body.digest) != request.body.digest:
        message = "the run already holds this line with another body; use another --run, or --new-run"
        raise Refused("body_changed", message)


def _first_of_its_name(custom_id: str | None, seen: Mapping[str, int]) -> None:
    if custom_id is not None and custom_id in seen:
        message = f"custom_id is already used by line {seen[custom_id]}, which runs"
        raise Refused("duplicate_custom_id", message)


async def _settle(submission: Submission, unacked: list[tuple[bytes, Awaitable[Placed]]]) -> None:
    """Wait for acknowledgements: a request counts as accepted only then."""
    for request_id, ack in unacked:
        await ack
        submission.acknowledged.append(request_id)
    unacked.clear()


async def _close(world: World, submission: Submission, known: int) -> None:
    entries = submission.entries
    opened = submission.view.opened
    record = RunSubmitted(
        run=opened.run,
        tenant=opened.tenant,
        lines=len(entries),
        accepted=len(submission.wanted),
        refused=sum(e.request_id is None for e in entries),
        duplicates=known,
        submitted_at=world.now(),
    )
    await (await world.outbox.send(Emit(CONTROL_EVENTS, 0, opened.run.encode(), record)))
    submission.view.submitted = record


async def wait(world: World, submission: Submission, progress: Callable[[int], None] | None = None) -> None:
    """Wait until every accepted line has ended."""
    await follow(world.log, world.codec, submission.view, submission.wanted, progress)


async def _answered(world: World, result: Result) -> Result:
    """Return *result* with its answer at hand; one that is lost is an error of its own line only."""
    try:
        return await world.claims.answered(result)
    except InvalidRecord as error:
        return replace(result, status=502, error_code="answer_lost", error_message=str(error))


def check_out(out: Path) -> None:
    """Raise `ConfigError` if *out* cannot become a file: known now rather than after the work."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ConfigError(f"cannot write {out}: give a file in a folder that exists and is writable")


async def write_results(world: World, submission: Submission, out: Path) -> Mapping[str, int]:
    """Write one line for each non-blank input line, in its order; return counts by outcome.

    Answers that are kept elsewhere are fetched one at a time.
    """
    totals = {"lines": 0, "ok": 0, "failed": 0}
    temporary = out.with_name(out.name + ".part")
    try:
        # Lines are short, and a thread for each would cost more than it frees.
        with temporary.open("wb") as file:
            for entry in submission.entries:
                outcome = submission.view.outcomes.get(entry.request_id or b"")
                if outcome is not None and outcome.result is not None:
                    outcome = replace(outcome, result=await _answered(world, outcome.result))
                row = output_line(entry, outcome)
                file.write(orjson.dumps(row) + b"\n")
                totals["lines"] += 1
                totals["ok" if row["error"] is None else "failed"] += 1
        temporary.replace(out)
    except OSError as error:
        raise Unavailable(f"cannot write {out}: {error.strerror}") from None
    return totals


def output_line(entry: Entry, outcome: Outcome | None) -> dict[str, Any]:
    """Return the output line of *entry*: the OpenAI batch format plus `line` and `signalbox`."""
    request_id = entry.request_id.hex() if entry.request_id is not None else None
    row: dict[str, Any] = {
        "id": f"batch_req_{request_id}" if request_id else f"batch_line_{entry.line}",
        "line": entry.line,
        "custom_id": entry.custom_id,
        "response": None,
        "error": None,
    }
    if entry.request_id is None:
        row["error"] = {"code": entry.code, "message": entry.message}
        return row
    result = outcome.result if outcome is not None else None
    if result is None:
        stage = outcome.dead.stage if outcome is not None and outcome.dead is not None else "?"
        message = f"stage {stage} could not process the request; its dead letter can be redriven"
        row["error"] = {"code": "dead_lettered", "message": message}
        return row
    row["signalbox"] = {
        "decision": result.decision,
        "model": result.model,
        "provider": result.provider,
        "attempt": result.attempt,
        "cost_usd": result.cost_usd,
        "policy_hash": result.policy_hash,
    }
    if result.status in SUCCESS and result.answer is not None:
        body = orjson.loads(unseal(result.answer))
        row["response"] = {"status_code": result.status, "request_id": request_id, "body": body}
    else:
        row["error"] = {"code": result.error_code or str(result.status), "message": result.error_message}
    return row
