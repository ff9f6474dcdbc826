"""The commands that start something of their own or read either kind of log: run, demo, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.errors import ConfigError
from streams.cli import FOLDER, USAGE, Broker, Dir, Found, Json, PolicyFile, finish, located, read_policy
from streams.settings import Settings

BUNDLED_POLICY = Path(__file__).parent.parent / "policies" / "demo.yaml"
_DEMO = Path(__file__).parent.parent / "demo" / "requests.jsonl"


def broker_of(folder: Path) -> Found | None:
    """Return the broker of the stack that runs in *folder*, None where none runs."""
    from infra.local import control  # noqa: PLC0415 - only needed when a command runs
    from infra.local.errors import StackError  # noqa: PLC0415 - as above

    try:
        endpoints = control.endpoints(folder)
    except StackError:
        return None
    return Found(
        endpoints.broker,
        endpoints.broker_settings,
        endpoints.triton,
        endpoints.triton_settings,
        dict(endpoints.providers),
    )


def locate(broker: str | None, folder: Path) -> Settings:
    """Return the settings of the log that is meant: at *broker*, else of the stack in *folder*."""
    return located(broker_of, broker, folder)


def register(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command()(run)
    app.command()(demo)
    app.command()(explain)


def run(  # noqa: PLR0913 - one parameter for each option that the user has
    file: Annotated[Path, typer.Argument(help="Requests in the OpenAI batch format.")],
    out: Annotated[Path, typer.Option(help="Where the results go.")],
    policy: PolicyFile = None,
    keep_log: Annotated[Path | None, typer.Option("--keep-log", help="Copy the topics here.")] = None,
    run_name: Annotated[str | None, typer.Option("--run", help="Name of the run.")] = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Profile of the simulated providers.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated providers.")] = 0,
    triton: Annotated[str, typer.Option(help="A running Triton, host:port of gRPC.")] = "",
    json: Json = False,
) -> None:
    """Route a batch file in this process: no broker, simulated providers, Triton only if needed."""
    from infra.local.oneprocess import RunOptions, run_file  # noqa: PLC0415 - Faust takes long to import
    from infra.local.routing import DEFAULT_POLICY  # noqa: PLC0415 - as above
    from streams.batch import BatchOptions  # noqa: PLC0415 - as above
    from streams.settings import settings  # noqa: PLC0415 - as above

    async def work() -> int:
        chosen = read_policy(policy or DEFAULT_POLICY)
        batch = BatchOptions(tenant or settings().tenant, run_name)
        options = RunOptions(file, out, batch, keep_log, profile, seed, triton, json)
        return await run_file(chosen, options)

    finish(work())


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where the demo keeps its files.")] = Path("out/demo"),
    policy: PolicyFile = None,
    file: Annotated[Path | None, typer.Option(help="Other requests than the bundled ones.")] = None,
    json: Json = False,
) -> None:
    """Route the bundled requests end to end on this machine, and prove every decision again."""
    from infra.local.demo import DemoOptions, run_demo  # noqa: PLC0415 - Faust takes long to import
    from infra.local.routing import DEFAULT_POLICY  # noqa: PLC0415 - as above

    finish(run_demo(DemoOptions(folder, file or _DEMO, policy or DEFAULT_POLICY, json)))


def explain(  # noqa: PLR0913 - the options of a command
    request_id: Annotated[str, typer.Argument(help="The request's id, 32 hex digits.")],
    log: Annotated[
        Path | None, typer.Option("--log", help="A kept log; default: the running topics.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Tell what this policy would have done with the same signals.")
    ] = None,
    broker: Broker = None,
    folder: Dir = FOLDER,
    json: Json = False,
) -> None:
    """Tell why a request went where it went: signals, rules, candidates, attempts, timing.

    With --policy: what that policy would have decided, and the smallest change of signals that flips it.
    """
    from replay.cli import explain_view  # noqa: PLC0415 - only needed when a command runs
    from schemas.logdir import LogDir, LogDirError  # noqa: PLC0415 - as above

    try:
        under = None if policy is None else read_policy(policy)
        view = None if log is None else LogDir(log)
    except (ConfigError, LogDirError) as error:
        typer.echo(f"explain: {error}", err=True)
        raise typer.Exit(USAGE) from None
    if view is not None:
        raise typer.Exit(explain_view(view, request_id, as_json=json, under=under))

    async def work() -> int:
        from streams.cli import connected, located  # noqa: PLC0415 - as above
        from streams.view import Snapshot  # noqa: PLC0415 - as above

        async with connected(located(broker_of, broker, folder)) as world:
            snapshot = await Snapshot.take(world.log, world.policies)
            return explain_view(snapshot, request_id, as_json=json, under=under)

    finish(work())
