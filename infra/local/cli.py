"""The commands ``up``, ``down`` and ``status``, mounted by signalbox.py. No logic.

What runs the stack is imported when a command runs: ``signalbox --help`` need not wait for it.
"""
# ruff: noqa: PLC0415, FBT002 -- late imports as said above; typer makes flags of boolean parameters

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import orjson
import typer

from infra.local.errors import NothingRunning, StackError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from infra.local.control import Status
    from infra.local.state import StackState

BARE = "infra.local.deployment:bare"
FOLDER = Path(".signalbox")
_NO = 1

Answer = TypeVar("Answer")
Folder = Annotated[Path, typer.Option("--dir", help="Where the stack's data, logs and state live.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Remote = Annotated[
    str | None, typer.Option("--broker", help="Look at the deployment on this Kafka, host:port, instead.")
]
File = typer.Option(exists=True, dir_okay=False)


def register(app: typer.Typer, deployment: str = BARE) -> None:
    """Mount the commands; *deployment* names a ``DeploymentFactory`` as ``module:function``."""
    _register_up(app, deployment)
    _register_down(app)
    _register_status(app)


def _option(text: str, *names: str, file: bool = False) -> Any:  # noqa: ANN401 -- what typer.Option returns
    return typer.Option(*names, help=text, exists=file, dir_okay=not file)


def _register_up(app: typer.Typer, deployment: str) -> None:
    @app.command()
    def up(  # noqa: PLR0913 -- one parameter for each option that the user has
        folder: Folder = FOLDER,
        workers: Annotated[bool, _option("Start the workers too.")] = False,
        policy: Annotated[str | None, _option("The policy, a file.")] = None,
        decision_workers: Annotated[int, typer.Option(min=1, help="How many decision workers.")] = 1,
        profile: Annotated[Path | None, _option("Profile of the simulated providers.", file=True)] = None,
        seed: Annotated[int, _option("Seed of the simulated providers.")] = 0,
        triton: Annotated[
            bool | None, _option("Default: if the policy needs it.", "--triton/--no-triton")
        ] = None,
        broker: Annotated[str | None, _option("External Kafka, host:port[,host:port].")] = None,
        broker_settings: Annotated[
            Path | None, _option("TLS and SASL settings of the external Kafka (YAML).", file=True)
        ] = None,
        triton_address: Annotated[str | None, _option("External Triton, host:port of gRPC.")] = None,
        triton_settings: Annotated[
            Path | None, _option("TLS settings of the external Triton (YAML).", file=True)
        ] = None,
        cache: Annotated[Path | None, _option("Where downloads live.")] = None,
        archive: Annotated[
            str | None, _option("With --workers: one more, which archives to this folder or s3:// place.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Start the local stack, and return when all of it is healthy."""
        from infra.local import control
        from infra.local.deployment import DeploymentOptions
        from infra.local.external import External
        from infra.local.stack import StackConfig
        from infra.local.supervisor import Assignment

        config = StackConfig(
            folder=folder.absolute(),
            triton=triton,
            broker=External(broker, absolute(broker_settings)) if broker else None,
            external_triton=External(triton_address, absolute(triton_settings)) if triton_address else None,
            profile=absolute(profile),
            seed=seed,
            cache=absolute(cache),
            keep=True,
        )
        place = archive if archive is None or "://" in archive else str(Path(archive).absolute())
        options = DeploymentOptions(config.folder, policy, config.profile, decision_workers, place)
        assignment = Assignment(stack=config, deployment=deployment, options=options, workers=workers)
        state = run(control.up(assignment, lambda doing: typer.echo(doing, err=True)))
        emit(summary(state)) if json else typer.echo(described(state, folder))


def _register_down(app: typer.Typer) -> None:
    @app.command()
    def down(folder: Folder = FOLDER, json: Json = False) -> None:
        """Stop the local stack; its data stays."""
        from infra.local import control

        try:
            stopped = run(control.down(folder.absolute()), quiet=(NothingRunning,))
        except NothingRunning as error:
            emit({"stopped": []}) if json else typer.echo(str(error))
            return
        emit({"stopped": stopped}) if json else typer.echo(
            f"stopped {len(stopped)} processes; data: {folder}"
        )


def _register_status(app: typer.Typer) -> None:
    @app.command()
    def status(folder: Folder = FOLDER, broker: Remote = None, json: Json = False) -> None:
        """Say what runs and what is stuck: exit 0 if all is well, 1 if not, 3 if nothing runs."""
        from infra.local import standing

        asked = standing.account(folder.absolute()) if broker is None else standing.account_of(broker)
        try:
            found = run(asked, quiet=(NothingRunning,))
        except NothingRunning as error:
            if json:
                emit({"running": False, "healthy": False})
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from error
        if json:
            emit(standing.as_json(found))
        else:
            known = [tabled(found.status)] if broker is None else []
            typer.echo("\n".join([*known, *standing.told(found)]))
        raise typer.Exit(0 if found.good else _NO)


def absolute(path: Path | None) -> Path | None:
    """Return *path* so that it means the same to a process in another folder."""
    return None if path is None else path.absolute()


def run(work: Coroutine[Any, Any, Answer], quiet: tuple[type[StackError], ...] = ()) -> Answer:
    """Run *work*, ending the program as its error says; those in *quiet* are raised."""
    try:
        return asyncio.run(stoppable(work))
    except quiet:
        raise
    except StackError as error:
        fail(error)
    except (asyncio.CancelledError, KeyboardInterrupt):
        typer.echo("interrupted: everything that was started has been stopped", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None


async def stoppable(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run *work* so that SIGTERM cancels it just as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def fail(error: StackError) -> NoReturn:
    """Tell the user and end with the error's exit code."""
    typer.echo(f"signalbox: {error}", err=True)
    raise typer.Exit(error.exit_code) from error


def emit(value: object) -> None:
    """Write *value* to stdout as one JSON line."""
    typer.echo(orjson.dumps(value).decode())


def summary(state: StackState) -> dict[str, object]:
    """Return what ``up --json`` prints."""
    found = state.endpoints
    providers = found.providers if found else {}
    return {
        "broker": found.broker if found else None,
        "triton": found.triton if found else None,
        "providers": [{"name": name, "base_url": url} for name, url in providers.items()],
        "workers": [
            {"role": one.role, "instance": one.instance, "pid": one.process.pid if one.process else None}
            for one in state.workers
        ],
        "supervisor_pid": state.supervisor.pid,
    }


def described(state: StackState, folder: Path) -> str:
    """Return what ``up`` prints for a person."""
    lines = [f"{one.name:<12}{one.address}" for one in state.components]
    lines += [
        f"{f'{one.role}/{one.instance}':<24}pid {one.process.pid}" for one in state.workers if one.process
    ]
    lines.append(f"everything is healthy; `signalbox down --dir {folder}` stops it")
    return "\n".join(lines)


def tabled(found: Status) -> str:
    """Return what ``status`` prints for a person."""
    lines = [f"supervisor  {found.phase} (pid {found.supervisor_pid or 'none'})"]
    for one in (*found.components, *found.workers):
        word = "healthy" if one.healthy else "NOT healthy"
        again = f", restarted {one.restarts} times" if one.restarts else ""
        lines.append(f"{one.name:<24}{word:<13}pid {one.pid or '-'}  {one.address}{again}")
    if found.phase == "orphaned":
        lines.append("the supervisor was killed: `signalbox down` clears what it left")
    return "\n".join(lines)
