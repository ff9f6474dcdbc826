"""The command `doctor`: ask every dependency, print what is wrong and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from agents.errors import ConfigError
from streams.app import load_registries
from streams.cli import DOWN, FOLDER, NO, OK, Broker, Dir, Json, PolicyFile, connected, finish, read_policy
from streams.doctor import LOCAL, OVER_THE_BROKER, Finding, Patient, examined, summary
from streams.doctor import broker as ask_broker
from streams.doctor_services import providers, triton
from streams.settings import Settings

Locate = Callable[[str | None, Path], Settings]
_COLOURS = {"ok": "green", "note": "yellow", "wrong": "red", "down": "red"}


def register(app: typer.Typer, locate: Locate, default_policy: Path) -> None:
    """Mount the command; without --policy the topics and services of *default_policy* are expected."""

    @app.command()
    def doctor(
        policy: PolicyFile = None,
        replication: Annotated[int, typer.Option(min=1, help="Replicas that topics should have.")] = 1,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Check every dependency: exit 0 if all is well, 1 if something is wrong, 3 if something is down."""

        async def work() -> int:
            load_registries()
            chosen = read_policy(policy or default_policy)
            patient = Patient(locate(broker, folder), chosen, folder, replication)
            found = await diagnosis(patient)
            tell(found, as_json=json)
            return exit_code(found)

        finish(work())


async def diagnosis(patient: Patient) -> list[Finding]:
    """Return everything that is found; what needs the broker is left out while that is down."""
    found = await examined(patient, [ask_broker])
    if all(one.grade == "ok" for one in found):
        try:
            async with connected(patient.settings) as world:
                found += await examined(dataclasses.replace(patient, world=world), OVER_THE_BROKER)
        except ConfigError as error:
            found.append(Finding("topics", "wrong", str(error), "signalbox topics apply, or signalbox up"))
    return found + await examined(patient, [triton, providers, *LOCAL])


def exit_code(found: list[Finding]) -> int:
    """Return 3 if anything is down, 1 if anything is wrong, else 0."""
    grades = {one.grade for one in found}
    return DOWN if "down" in grades else NO if "wrong" in grades else OK


def tell(found: list[Finding], *, as_json: bool) -> None:
    """Print *found*."""
    if as_json:
        rows = [dataclasses.asdict(one) for one in found]
        typer.echo(orjson.dumps({"healthy": exit_code(found) == OK, **summary(found), "findings": rows}))
        return
    table = Table("check", "", "found", "do", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            one.check, f"[{_COLOURS[one.grade]}]{one.grade}[/]", _plain(one.detail), _plain(one.todo)
        )
    Console().print(table)


def _plain(text: str) -> str:
    """Return *text* with nothing in it that the table would take for markup."""
    return text.replace("[", r"\[")
