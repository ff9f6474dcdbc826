"""`signalbox run`: a batch file through the whole topology in this process, with simulated providers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agents.errors import CallTimeout, ConfigError, Unavailable
from agents.policy import Policy
from agents.ports import HttpReply, Infer
from infra.local.errors import StackError
from infra.local.routing import Routing
from infra.simulated_llm.in_process import InProcess
from infra.simulated_llm.profile import Profile, ProfileError, default, load
from streams.app import Ports
from streams.batch import BatchOptions, read_content, submit, write_results
from streams.claims import ClaimCheck
from streams.cli import NO, OK, Target, say, waited
from streams.clients.retrying import RetryingInfer
from streams.keep import keep_log
from streams.settings import settings, wall_clock
from streams.single import single_process
from streams.worker import no_classifier


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `signalbox run` was asked for; *triton* is the address of a running one."""

    file: Path
    out: Path
    batch: BatchOptions
    keep_log: Path | None
    profile: Path | None
    seed: int
    triton: str
    as_json: bool


async def run_file(policy: Policy, options: RunOptions) -> int:
    """Run the batch and return the exit code: 0, or 1 if any line failed."""
    profile = await asyncio.to_thread(_checked, options)
    async with AsyncExitStack() as stack:
        infer = await _infer(policy, options.triton, stack)
        complete = InProcess(profile, options.seed, reply=HttpReply, timed_out=CallTimeout)
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def failed(stage: str, error: BaseException) -> None:
            if not broken.done():
                broken.set_exception(Unavailable(f"stage {stage} failed: {type(error).__name__}: {error}"))

        ports = Ports(infer, complete)
        claims = _claims(stack)
        world = await stack.enter_async_context(
            single_process(policy, ports, wall_clock, failed=failed, claims=claims)
        )
        submission = await submit(world, options.file, policy, options.batch)
        waiting = asyncio.ensure_future(waited(world, submission))
        done, _ = await asyncio.wait({waiting, broken}, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            await broken
        broken.cancel()
        await waiting
        totals = await write_results(world, submission, options.out)
        report: dict[str, Any] = {
            "run": submission.view.opened.run,
            **totals,
            "out": str(options.out),
        }
        if options.keep_log is not None:
            report["log"] = str(options.keep_log)
            report["records"] = await keep_log(
                world.log, world.policies, options.keep_log, world.claims.store
            )
        say(report, as_json=options.as_json)
        return OK if totals["failed"] == 0 else NO


def _claims(stack: AsyncExitStack) -> ClaimCheck:
    """Return the claim check that is set, else one over a folder that is gone with the run."""
    found = settings()
    if not found.claims:
        folder = stack.enter_context(TemporaryDirectory(prefix="signalbox-claims-"))
        found = settings(claims=folder)
    return found.claim_check()


def _checked(options: RunOptions) -> Profile:
    """Return the profile; raises `ConfigError` for what could not be used, before anything is started."""
    read_content(options.file)
    Target(options.out, options.keep_log, as_json=options.as_json).check()
    try:
        return default() if options.profile is None else load(options.profile)
    except ProfileError as error:
        raise ConfigError(str(error)) from None


async def _infer(policy: Policy, address: str, stack: AsyncExitStack) -> Infer:
    """Return the way to Triton: the one at *address*, else one started here if the policy demands it."""
    needs = Routing(policy).needs()
    if not needs.models or needs.repository is None:
        return no_classifier
    if not address:
        address = await _start_triton(needs.models, needs.repository, stack)
    from streams.clients.triton import TritonInfer  # noqa: PLC0415 - only such policies pay for gRPC

    return RetryingInfer(await stack.enter_async_context(TritonInfer(address)))


async def _start_triton(models: tuple[str, ...], repository: Path, stack: AsyncExitStack) -> str:
    from infra.local.triton import Triton, TritonOptions  # noqa: PLC0415 - as above

    folder = Path(stack.enter_context(TemporaryDirectory(prefix="signalbox-triton-")))
    triton = Triton(TritonOptions(folder=folder, repository=repository, models=models))
    try:
        address = await triton.start()
    except StackError as error:
        raise Unavailable(f"the policy needs Triton, which did not start: {error}") from error
    stack.push_async_callback(triton.stop)
    return address
