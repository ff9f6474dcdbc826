"""The commands that need a running log: worker, submit, run-status."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.errors import ConfigError, RouterError, Unavailable
from agents.policy import Policy
from schemas.logdir import LogDirError
from streams.app import load_registries, make_world
from streams.batch import BatchOptions, Submission, check_out, wait, write_results
from streams.batch import submit as submit_lines
from streams.kafka import KafkaLog
from streams.keep import check_folder, keep_log
from streams.policies import publish
from streams.runners import World
from streams.runners.archiving import OpenArchive
from streams.runs import collect, counts, find_run
from streams.settings import Settings, claims_folder, environment, settings, wall_clock
from streams.telemetry import Telemetry, configure_logging

OK, NO, USAGE, DOWN = 0, 1, 2, 3
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Broker = Annotated[str | None, typer.Option(help="Kafka, host:port; default: the running stack's.")]


class Found(NamedTuple):
    """Where the parts of a running stack are, and the files with their TLS and SASL settings."""

    broker: str
    settings: Path | None = None
    triton: str | None = None
    triton_settings: Path | None = None
    providers: Mapping[str, str] | None = None


FindBroker = Callable[[Path], Found | None]
Dir = Annotated[Path, typer.Option("--dir", help="The folder of the running stack.")]
FOLDER = Path(".signalbox")
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="The policy, a YAML file.")]


def finish(work: Coroutine[Any, Any, int]) -> None:
    """Run *work* and exit with its code; our errors become one line and the stated code."""
    # Retries are logged by their library: to standard error, since standard output is for answers.
    configure_logging(json_lines=False, level="warning")
    try:
        code = asyncio.run(_stoppable(work))
    except (ConfigError, LogDirError) as error:
        typer.echo(f"signalbox: {error}", err=True)
        code = USAGE
    except Unavailable as error:
        typer.echo(f"signalbox: {error}", err=True)
        code = DOWN
    except RouterError as error:
        typer.echo(f"signalbox: {error}", err=True)
        code = NO
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    raise typer.Exit(code)


async def _stoppable(work: Coroutine[Any, Any, int]) -> int:
    """Let SIGTERM cancel *work* as Ctrl-C does, so that what it started is stopped."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def read_policy(path: Path) -> Policy:
    """Return the policy in *path*; raises `ConfigError`."""
    load_registries()
    try:
        return Policy.parse(path.read_text(encoding="utf-8"), str(path), environment())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read policy {path}: {error}") from None


@asynccontextmanager
async def connected(found: Settings) -> AsyncIterator[World]:
    """Connect to the running log, with its policies read."""
    load_registries()
    log = KafkaLog(found.kafka)
    await log.start()
    try:
        world = make_world(log, Telemetry(wall_clock, "client", quiet=True), "client", found.claim_check())
        if await log.partitions("control.policy") == 0:
            raise ConfigError(
                f"the broker at {found.broker} has no topics of prefix {found.prefix!r}: run `signalbox up`"
            )
        await world.policies.start()
        try:
            yield world
        finally:
            await world.policies.stop()
    finally:
        await log.stop()


async def chosen_policy(world: World, path: Path | None) -> Policy:
    """Return the policy in *path*, published and read back, else the active one."""
    if path is None:
        if world.policies.active is None:
            raise ConfigError("no policy is active; pass --policy FILE")
        return world.book[world.policies.active]
    policy = read_policy(path)
    if policy.hash not in world.book:
        await publish(world.outbox, policy, "submit", world.now(), activate=False)
        await world.policies.has(policy.hash)
    return world.book[policy.hash]


def progress_bar(title: str) -> Progress:
    """Return a bar on standard error for long work."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


async def waited(world: World, submission: Submission) -> None:
    """Wait for the run with a progress bar."""
    with progress_bar("requests") as bar:
        task = bar.add_task("requests", total=len(submission.wanted))
        await wait(world, submission, lambda count: bar.update(task, completed=count))


async def submit_file(
    found: Settings, file: Path, policy_path: Path | None, options: BatchOptions, target: Target
) -> int:
    """Submit *file*; with an output wait for it. Returns the exit code."""
    target.check()
    async with connected(found) as world:
        policy = await chosen_policy(world, policy_path)
        submission = await submit_lines(world, file, policy, options)
        view = submission.view
        report: dict[str, Any] = {
            "run": view.opened.run,
            "lines": len(submission.entries),
            "accepted": len(submission.wanted),
            "refused": sum(e.request_id is None for e in submission.entries),
            "new": len(submission.acknowledged),
        }
        code = OK if report["refused"] == 0 else NO
        if target.out is not None:
            await waited(world, submission)
            totals = await write_results(world, submission, target.out)
            report.update(ok=totals["ok"], failed=totals["failed"], out=str(target.out))
            code = OK if totals["failed"] == 0 else NO
        if target.keep_log is not None:
            await keep_log(world.log, world.policies, target.keep_log, world.claims.store)
            report["log"] = str(target.keep_log)
        say(report, as_json=target.as_json)
        return code


class Target:
    """Where the results and the log of a run go, and how it is reported."""

    def __init__(self, out: Path | None, keep_log: Path | None, *, as_json: bool) -> None:
        self.out = out
        self.keep_log = keep_log
        self.as_json = as_json

    def check(self) -> None:
        """Raise `ConfigError` if either cannot be written: known now rather than after the work."""
        if self.out is not None:
            check_out(self.out)
        if self.keep_log is not None:
            check_folder(self.keep_log)


def say(report: dict[str, Any], *, as_json: bool) -> None:
    """Print *report* as one JSON object, or as lines."""
    if as_json:
        typer.echo(orjson.dumps(report))
    else:
        typer.echo("\n".join(f"{name}: {value}" for name, value in report.items()))


async def run_status(found: Settings, run: str, tenant: str | None, *, as_json: bool) -> int:
    """Print how far run *run* is; exit code 1 if there is no such run."""
    async with connected(found) as world:
        view = await find_run(world.log, world.codec, run, tenant)
        if view is None:
            typer.echo(f"signalbox: no run {run!r} in the log; `signalbox submit` prints its name", err=True)
            return NO
        await collect(world.log, world.codec, view)
        submitted = view.submitted
        report: dict[str, Any] = {
            "run": run,
            "tenant": view.opened.tenant,
            "submitted": submitted is not None,
        }
        if submitted is not None:
            report.update(lines=submitted.lines, refused=submitted.refused)
        report.update(counts(view))
        report["done"] = submitted is not None and report["pending"] == 0
        say(report, as_json=as_json)
        return OK


Locate = Callable[[str | None, Path], Settings]


def located(find_broker: FindBroker, broker: str | None, folder: Path) -> Settings:
    """Return the settings with the broker that is meant; raises `Unavailable` if none is known."""
    known = settings()
    running = None if broker or known.broker else find_broker(folder)
    address = broker or known.broker or (running.broker if running else "")
    if not address:
        raise Unavailable(
            f"no stack runs in {folder}: start one with `signalbox up --workers`, or pass --broker HOST:PORT"
        )
    # The workers of the stack in a folder keep large bodies there, so whoever talks to it does too.
    claims = str(claims_folder(folder)) if running and not known.claims else None
    found: dict[str, Any] = {"broker": address, "claims": claims}
    if running is not None:
        parts = {
            "broker_settings": running.settings,
            "triton": running.triton,
            "triton_settings": running.triton_settings,
            "providers": running.providers,
        }
        found |= {name: part for name, part in parts.items() if not getattr(known, name)}
    return settings(**found)


def register(app: typer.Typer, find_broker: FindBroker, open_archive: OpenArchive | None = None) -> None:
    """Mount the commands; *find_broker* tells the address of the stack that runs in a folder.

    *open_archive* opens what the role `archive` writes.
    """

    def locate(broker: str | None, folder: Path) -> Settings:
        return located(find_broker, broker, folder)

    _register_worker(app, locate, open_archive)
    _register_submit(app, locate)
    _register_run_status(app, locate)


def _register_worker(app: typer.Typer, locate: Locate, open_archive: OpenArchive | None) -> None:
    @app.command()
    def worker(  # noqa: PLR0913 - one parameter for each option that the user has
        role: Annotated[
            str,
            typer.Argument(
                help="admission, signals.<role>, decision, dispatch, provider.<name>, retry, archive"
            ),
        ],
        instance: Annotated[str, typer.Option(help="Name of this member; the same one resumes.")] = "0",
        broker: Broker = None,
        http_port_file: Annotated[Path | None, typer.Option(help="Where to write the HTTP port.")] = None,
        folder: Dir = FOLDER,
        archive: Annotated[
            str | None, typer.Option(help="Of the role archive: a folder, or s3://bucket/folder.")
        ] = None,
    ) -> None:
        """Run one role (= one consumer group) until it is told to stop."""

        async def work() -> int:
            from streams.worker import Worker  # noqa: PLC0415 - Faust takes long to import

            found = locate(broker, folder)
            if archive:
                found = found.model_copy(update={"archive": archive})
            configure_logging(json_lines=True, level=found.log_level)
            return await Worker(role, instance, found, open_archive).run(http_port_file)

        finish(work())


def _register_submit(app: typer.Typer, locate: Locate) -> None:
    @app.command()
    def submit(  # noqa: PLR0913 - one parameter for each option that the user has
        file: Annotated[Path, typer.Argument(help="Requests in the OpenAI batch format.")],
        out: Annotated[Path | None, typer.Option(help="Where the results go; waits for them.")] = None,
        policy: PolicyFile = None,
        run: Annotated[str | None, typer.Option(help="Name of the run; default: digest of the file.")] = None,
        tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        keep: Annotated[Path | None, typer.Option("--keep-log", help="Copy the topics here.")] = None,
        new_run: Annotated[bool, typer.Option("--new-run", help="Force a run of its own.")] = False,
        wait_for: Annotated[bool, typer.Option("--wait", help="Wait for every result.")] = False,
        detach: Annotated[bool, typer.Option("--detach", help="Return once accepted.")] = False,
        json: Json = False,
    ) -> None:
        """Submit a batch file to the running stack."""

        async def work() -> int:
            if detach and (wait_for or out):
                raise ConfigError("--detach returns at once; it goes with neither --wait nor --out")
            if wait_for and out is None:
                raise ConfigError("--wait needs --out FILE for the results")
            found = locate(broker, folder)
            options = BatchOptions(tenant or found.tenant, run, new_run)
            return await submit_file(found, file, policy, options, Target(out, keep, as_json=json))

        finish(work())


def _register_run_status(app: typer.Typer, locate: Locate) -> None:
    @app.command(name="run-status")
    def run_status_command(
        run: Annotated[str, typer.Argument(help="The name that submit printed.")],
        tenant: Annotated[str | None, typer.Option(help="Whose; default: who opened it first.")] = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Tell how far a run is."""

        async def work() -> int:
            return await run_status(locate(broker, folder), run, tenant, as_json=json)

        finish(work())
