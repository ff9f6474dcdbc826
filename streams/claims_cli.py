"""The command `claims gc`: collect large bodies that no record refers to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from agents.errors import ConfigError
from streams.claims_gc import collect
from streams.cli import FOLDER, OK, Broker, Dir, Json, connected, finish, say
from streams.settings import Settings

Locate = Callable[[str | None, Path], Settings]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """Return the seconds that *text* (`90s`, `10m`, `24h`, `7d`) means; raises `ConfigError`."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if found is None:
        raise ConfigError(f"{text!r} is no duration: write 90s, 10m, 24h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def register(app: typer.Typer, locate: Locate) -> None:
    """Mount the commands; *locate* gives the settings of the running log."""
    claims = typer.Typer(no_args_is_help=True, help="Large bodies, which are kept outside the log.")
    app.add_typer(claims, name="claims")

    @claims.callback()
    def group() -> None:
        """Keep `gc` a command of its own name, though it is the only one."""

    @claims.command()
    def gc(
        grace: Annotated[str, typer.Option(help="Spare what is younger: 10m, 24h, 7d.")] = "24h",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Delete stored bodies that no record of any topic refers to."""

        async def work() -> int:
            found = locate(broker, folder)
            age = seconds(grace)
            async with connected(found) as world:
                store = world.claims.store
                if store is None:
                    raise ConfigError("no claim store is set: set SIGNALBOX_CLAIMS")
                done = await collect(world.log, store, now=world.now(), grace_s=age, dry_run=dry_run)
            say(dataclasses.asdict(done), as_json=json)
            return OK

        finish(work())
