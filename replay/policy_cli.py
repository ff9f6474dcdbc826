"""The commands of ``signalbox policy`` about a file alone; files in, text out, no broker.

Other modules mount their own subcommands on the group that `register` returns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import agents.selectors
import agents.signals
from agents.errors import ConfigError
from agents.policy import Policy
from agents.selectors import selector
from agents.signals import signal

OK, NO, USAGE = 0, 1, 2
File = Annotated[Path, typer.Argument(help="A configuration, YAML.", show_default=False)]


def register(app: typer.Typer) -> typer.Typer:
    """Add the group ``policy`` to *app* and return it, so that others can add to it."""
    group = typer.Typer(no_args_is_help=True)
    group.command("hash")(_hash)
    app.add_typer(group, name="policy", help="What a policy says, proves and decides; no broker needed.")
    return group


def read_policy(path: Path) -> Policy:
    """Return the policy in *path*, with every plugin loaded; raises `ConfigError`."""
    load_plugins()
    return Policy.parse(read_text(path), str(path))


def load_plugins() -> None:
    """Load every signal and selector, so that policies can name them."""
    signal.load(agents.signals)
    selector.load(agents.selectors)


def read_text(path: Path) -> str:
    """Return the text in *path*; raises `ConfigError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {os.fspath(path)}: {error}") from None


def _hash(path: File) -> None:
    """Print the hash of a policy: the SHA-256 of its normal form.

    Exits 2, naming file, line and path, if the file cannot be used.
    """
    try:
        typer.echo(read_policy(path).hash)
    except ConfigError as error:
        typer.echo(f"policy hash: {error}", err=True)
        raise typer.Exit(USAGE) from None
