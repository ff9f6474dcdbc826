"""`signalbox demo`: the bundled requests through the whole product on this machine, and their proof.

Everything for people goes to standard error while it runs; the report goes to standard output.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agents.errors import ConfigError, Unavailable
from agents.policy import Policy
from infra.local.demo_folder import DemoFolder, cleared
from infra.local.demo_report import Figures, figures, tables, worth_explaining
from infra.local.errors import StackError
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from replay.cli import OK, verdict
from replay.cli import summary as proof
from replay.decide import Report, decide_again
from replay.drawing import drawn
from replay.trail import trail
from schemas.logdir import LogDir
from streams.batch import BatchOptions, Submission, submit, wait, write_results
from streams.cli import NO, connected, read_policy
from streams.keep import keep_log
from streams.runners import World
from streams.settings import settings

INTERRUPTED = 128 + signal.SIGINT
# Nothing came back for so long: whatever should have answered will not.
PATIENCE_S = 120.0
_LOOK_S = 0.25
_WIDE = 140


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `signalbox demo` was asked for: where to write, which requests, under which policy."""

    folder: Path
    file: Path
    policy: Path
    as_json: bool


@dataclass(slots=True)
class Found:
    """What a demo has to tell; `seconds` by phase, in the order of the phases."""

    submission: Submission
    totals: Mapping[str, int]
    records: int
    report: Report | None = None
    figures: Figures | None = None
    explained: bytes | None = None
    seconds: dict[str, float] = field(default_factory=dict)


async def run_demo(options: DemoOptions) -> int:
    """Run the demo and return the exit code: 0 if every line has its result and was proved again.

    Raises what `streams.cli.finish` turns into a line and an exit code.
    """
    # Before anything of an earlier demo is removed.
    policy = read_policy(options.policy)
    await asyncio.to_thread(check_file, options.file)
    say = Console(stderr=True, highlight=False)
    try:
        with cleared(options.folder) as folder:
            found = await _route(options, policy, folder, say)
            return _tell(options, folder, found)
    except StackError as error:
        typer.echo(f"signalbox: {error}", err=True)
        return error.exit_code
    except asyncio.CancelledError:
        typer.echo("interrupted: everything that was started has been stopped", err=True)
        return INTERRUPTED


async def _route(options: DemoOptions, policy: Policy, folder: DemoFolder, say: Console) -> Found:
    """Start everything, route the file, keep the log, stop everything, and make the decisions again."""
    clock = _Clock()
    stack = LocalStack(
        StackConfig(folder.stack), Routing(policy), report=lambda event: say.print(f"  {event}")
    )
    say.print(f"starting Kafka, workers and what {options.policy.name} needs, in {folder.stack}")
    async with stack:
        await stack.start_workers()
        clock.lap("start")
        say.print(f"routing {options.file.name}")
        async with connected(settings(broker=stack.endpoints.broker)) as world:
            submission = await submit(world, options.file, policy, BatchOptions(new_run=True))
            await _watched(world, submission, say, folder)
            clock.lap("route")
            totals = await write_results(world, submission, folder.results)
            records = await keep_log(world.log, world.policies, folder.log)
        clock.lap("keep")
        found = Found(submission, totals, records, seconds=clock.laps)
        say.print("making every decision again from the log alone")
        # The proof needs nothing that runs, so it is made while everything stops.
        proving = asyncio.create_task(asyncio.to_thread(_prove, folder, found))
    await proving
    clock.lap("prove")
    return found


def check_file(path: Path) -> None:
    """Raise `ConfigError` if *path* holds nothing to submit: known now rather than once all runs."""
    try:
        found = bool(path.read_bytes().strip())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if not found:
        raise ConfigError(f"{path} holds no line; a batch file has one JSON object a line")


def _prove(folder: DemoFolder, found: Found) -> None:
    view = LogDir(folder.log)
    found.report = decide_again(view)
    outcomes = found.submission.view.outcomes.values()
    found.figures = figures([o.result for o in outcomes if o.result is not None], view)
    ids = [entry.request_id for entry in found.submission.entries if entry.request_id is not None]
    found.explained = worth_explaining(view, ids)


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.laps[phase] = round(now - self._since, 1)
        self._since = now


async def _watched(world: World, submission: Submission, say: Console, folder: DemoFolder) -> None:
    """Wait for the run, showing what each topic holds; raises `Unavailable` if nothing moves."""
    columns = (TextColumn("  {task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say) as bars:
        topics = _Topics(world, bars, len(submission.wanted))
        moved = asyncio.Event()
        waiting = asyncio.create_task(wait(world, submission, lambda _: moved.set()))
        looking = asyncio.create_task(topics.look())
        try:
            await _while_it_moves(waiting, moved, folder)
            await topics.once(last=True)
        finally:
            for task in (waiting, looking):
                task.cancel()
                with suppress(asyncio.CancelledError, Unavailable):
                    await task


async def _while_it_moves(waiting: asyncio.Task[None], moved: asyncio.Event, folder: DemoFolder) -> None:
    while not waiting.done():
        moved.clear()
        moving = asyncio.create_task(moved.wait())
        done, _ = await asyncio.wait(
            {waiting, moving}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        moving.cancel()
        if not done:
            raise Unavailable(
                f"no request has ended for {PATIENCE_S:.0f} s; the workers' logs say why: "
                f"{folder.stack / 'workers'}"
            )
    await waiting


class _Topics:
    """A bar for each topic that requests pass, filled by what the topic holds."""

    def __init__(self, world: World, bars: Progress, total: int) -> None:
        self._world = world
        self._bars = bars
        self._total = total
        self._shown: dict[str, TaskID] = {}

    async def look(self) -> None:
        """Keep looking until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(_LOOK_S)

    async def once(self, *, last: bool = False) -> None:
        """Look once; at the *last* look what a topic holds is all that it will ever hold."""
        for title, count in (await topic_counts(self._world)).items():
            if title not in self._shown:
                self._shown[title] = self._bars.add_task(title, total=self._total)
            # A request whose model is given needs no signals; one that falls back has several jobs.
            total = count if last else max(self._total, count)
            self._bars.update(self._shown[title], completed=count, total=total)


async def topic_counts(world: World) -> Mapping[str, int]:
    """Return how many records the topics hold that a request passes, in the order that it passes them."""
    log = world.log
    topics = await log.topics()
    order = ["requests", *(t for t in topics if t.startswith("signals."))]
    order += ["decisions", *(t for t in topics if t.startswith("jobs.")), "completions", "results"]
    tps = [(topic, p) for topic in order for p in range(await log.partitions(topic))]
    counts = dict.fromkeys(("jobs" if topic.startswith("jobs.") else topic for topic in order), 0)
    for (topic, _), end in (await log.ends(tps)).items():
        counts["jobs" if topic.startswith("jobs.") else topic] += end
    return {topic: count for topic, count in counts.items() if count}


def _tell(options: DemoOptions, folder: DemoFolder, found: Found) -> int:
    """Print and write the report; return the exit code."""
    row = _row(folder, found)
    folder.report.write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    if options.as_json:
        typer.echo(orjson.dumps(row))
    else:
        _draw(folder, found)
    if found.report is None:
        return NO
    code = verdict(found.report, str(folder.log))
    missing = len(found.submission.entries) - found.totals["lines"]
    if code == OK and missing:
        typer.echo(f"{folder.results} lacks {missing} lines", err=True)
    return code if code != OK else (NO if missing else OK)


def _row(folder: DemoFolder, found: Found) -> dict[str, Any]:
    return {
        "run": found.submission.view.opened.run,
        **found.totals,
        "decisions": found.report.decisions if found.report else 0,
        "reproduced": found.report.reproduced if found.report else 0,
        "explained": found.explained.hex() if found.explained else None,
        "figures": found.figures.as_json() if found.figures else None,
        "records": found.records,
        "out": str(folder.results),
        "log": str(folder.log),
        "seconds": found.seconds,
    }


def _draw(folder: DemoFolder, found: Found) -> None:
    out = console()
    if found.explained is not None:
        out.print(drawn(trail(LogDir(folder.log), found.explained)))
        out.print()
    if found.figures is not None:
        by_decision, by_model = tables(found.figures)
        out.print(by_decision, "", by_model, "", sep="\n")
        calls = f"{found.figures.call_p50_ms} ms (p50) and {found.figures.call_p99_ms} ms (p99)"
        out.print("p50 and p99 count from admission to result, of a batch submitted at once;")
        out.print(f"the simulated providers took {calls} a call")
    if found.report is not None:
        out.print(f"[bold]{proof(found.report)}[/bold]")
    seconds = ", ".join(f"{phase} {took:.1f} s" for phase, took in found.seconds.items())
    out.print(f"{sum(found.seconds.values()):.1f} s: {seconds}\n")
    out.print(f"results  {folder.results}  ({found.totals['lines']} lines)")
    out.print(f"log      {folder.log}  ({found.records} records; every topic, and what made each decision)")
    out.print(f"stack    {folder.stack}  (data and logs of what ran; all of it is stopped)")
    out.print(f"report   {folder.report}\n")
    command = _command()
    other = infra_policy("quickstart.yaml")
    out.print("try next:")
    if found.explained is not None:
        out.print(f"  {command} explain {_another(found)} --log {folder.log}")
    out.print(f"  {command} run {_shown(_demo_requests())} --out out.jsonl --policy {_shown(other)}")


def _another(found: Found) -> str:
    """Return a request that failed, else the last one: not the one that was explained above."""
    entries = [entry for entry in found.submission.entries if entry.request_id is not None]
    outcomes = found.submission.view.outcomes
    for entry in entries:
        outcome = outcomes.get(entry.request_id or b"")
        if outcome is not None and outcome.result is not None and outcome.result.error_code:
            return outcome.result.request_id.hex()
    return (entries[-1].request_id or b"").hex()


def _command() -> str:
    """Return how this program was called, to be typed again."""
    return sys.argv[0] if Path(sys.argv[0]).name == "signalbox" else "signalbox"


def console() -> Console:
    """Return standard output, wide enough for an explanation when it is a file."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_WIDE)


def infra_policy(name: str) -> Path:
    """Return the bundled policy *name*."""
    return Path(__file__).parent.parent / "policies" / name


def _demo_requests() -> Path:
    return Path(__file__).parent.parent / "demo" / "requests.jsonl"


def _shown(path: Path) -> Path:
    """Return *path* relative to where the user is, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
