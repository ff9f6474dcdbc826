"""The command ``signalbox policy probe``: does a policy decide what its probes expect, without a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from agents.errors import ConfigError
from agents.policy import Policy
from replay.policy_cli import read_policy, read_text
from replay.probing import Mode, Outcome, Prober

OK, NO, USAGE = 0, 1, 2

Config = Annotated[Path, typer.Argument(help="A configuration, YAML.", show_default=False)]
Probes = Annotated[Path, typer.Argument(help="Its probes, YAML.", show_default=False)]
Only = Annotated[str | None, typer.Option(help="heuristic: skip what needs a classifier (the default).")]
Stub = Annotated[str | None, typer.Option("--signals", help="stub: take expected_signals as given.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(group: typer.Typer) -> None:
    """Add the command to the group ``policy``."""
    group.command("probe")(_probe)


def _probe(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    config: Config,
    probes: Probes,
    *,
    only: Only = None,
    signals: Stub = None,
    as_json: Json = False,
) -> None:
    """Decide every probe and compare it with what is expected.

    A probe whose decision hangs on a classifier is skipped and says on which signal. Exits 1 if one failed.
    """
    try:
        mode = _mode(only, signals)
        found = report(read_policy(config, context.obj), _document(probes), mode)
    except ConfigError as error:
        typer.echo(f"policy probe: {error}", err=True)
        raise typer.Exit(USAGE) from None
    if as_json:
        typer.echo(orjson.dumps(found).decode())
    else:
        _print(found)
    raise typer.Exit(NO if found["failed"] else OK)


def _mode(only: str | None, signals: str | None) -> Mode:
    if only not in {None, "heuristic"} or signals not in {None, "stub"} or (only and signals):
        raise ConfigError("give --only heuristic, --signals stub, or neither")
    return "stub" if signals else "heuristic"


def report(policy: Policy, document: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    """Return the counts of probes and every group of *document*; raises `ConfigError`."""
    fixtures = document.get("fixtures")
    prober = Prober(policy, fixtures if isinstance(fixtures, Mapping) else {}, mode)
    groups = [_group(prober, group) for group in document["decisions"]]
    totals = {key: sum(group[key] for group in groups) for key in ("passed", "failed", "skipped")}
    return {**totals, "groups": groups}


def _document(path: Path) -> dict[str, Any]:
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        document = yaml.load(read_text(path), loader)  # noqa: S506 - a safe loader, the fast one if it is there
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    groups = document.get("decisions") if isinstance(document, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ConfigError(f"{path}: probes are a mapping with a list of groups under decisions")
    return dict(document)


def _group(prober: Prober, group: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = prober.group(group)
    counts = Counter("skipped" if o.ok is None else "passed" if o.ok else "failed" for o in outcomes)
    return {
        "id": str(group.get("id") or ""),
        "expected": group.get("expected_decision"),
        "passed": counts["passed"],
        "failed": counts["failed"],
        "skipped": counts["skipped"],
        "variants": [_variant(outcome) for outcome in outcomes],
    }


def _variant(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "decision": outcome.decision,
        "recipe": outcome.recipe,
        "signals": outcome.signals,
        "ok": outcome.ok,
        "why": outcome.why,
    }


def _print(found: Mapping[str, Any]) -> None:
    for group in found["groups"]:
        typer.echo(
            f"{group['id']}: {group['passed']} passed, {group['failed']} failed, {group['skipped']} skipped"
        )
        for variant in group["variants"]:
            if variant["ok"] is not True:
                word = "skipped" if variant["ok"] is None else "FAILED"
                typer.echo(f"  {word} {variant['id']}: {variant['why']}")
    typer.echo(f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
