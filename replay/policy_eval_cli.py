"""The commands ``policy eval``, ``policy explain`` and ``policy diff``: files in, decisions out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console

from agents.engine.scalar import ABSENT
from agents.engine.scalar import OK as KNOWN
from agents.errors import ConfigError, InvalidRecord
from agents.policy import Policy
from replay.comparison_cli import diff_over
from replay.policy_cli import read_policy, read_text
from replay.policy_difference import difference, lines_of
from replay.policy_drawing import drawn
from replay.policy_eval import Judge, judged
from replay.previewing import Previewer
from replay.remake import load_plugins
from replay.signals_cli import content_of
from replay.signals_cli import lines_of as raw_lines_of
from replay.vectors import VectorError, of_case, of_entries
from schemas.signal import Observations

OK, NO, USAGE = 0, 1, 2
_WIDTH = 160

Config = Annotated[Path | None, typer.Argument(help="A configuration, YAML.", show_default=False)]
Needed = Annotated[Path, typer.Argument(help="A configuration, YAML.", show_default=False)]
Signals = Annotated[
    Path | None, typer.Option(help="JSON: [{id, recipe?, signals: {type:name: {matched, ...}}}].")
]
Cases = Annotated[Path | None, typer.Option(help="Golden cases, JSON lines (may be gzipped).")]
Policies = Annotated[Path | None, typer.Option(help="The configurations that the cases name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNUSABLE = (ConfigError, VectorError, InvalidRecord, OSError)


def register(group: typer.Typer) -> None:
    """Add the commands to the group ``policy``."""
    group.command("eval")(_eval)
    group.command("explain")(_explain)
    group.command("diff")(_diff)


def _refuse(command: str, why: object) -> NoReturn:
    typer.echo(f"policy {command}: {why}", err=True)
    raise typer.Exit(USAGE) from None


def _eval(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    config: Config = None,
    *,
    signals: Signals = None,
    cases: Cases = None,
    policies: Policies = None,
    as_json: Json = False,
) -> None:
    """Decide by the rules alone, for signals as given; a signal that is not listed did not match.

    With CONFIG and --signals prints a list, with --cases and --policies an object a line. Exits 2 for
    what cannot be read.
    """
    try:
        if cases is not None and policies is not None and config is None and signals is None:
            for answer in golden(cases, policies, context.obj):
                typer.echo(orjson.dumps(answer) if as_json else _line(answer))
            return
        if config is None or signals is None or cases is not None or policies is not None:
            _refuse("eval", "give CONFIG and --signals, or --cases and --policies")
        answers = list(judged(entries_in(signals), read_policy(config, context.obj), observed_in(signals)))
    except _UNUSABLE as error:
        _refuse("eval", error)
    if as_json:
        typer.echo(orjson.dumps(answers, option=orjson.OPT_INDENT_2))
        return
    for answer in answers:
        typer.echo(_line(answer))


def _line(answer: Mapping[str, Any]) -> str:
    models = ", ".join(answer["models"]) or "no model"
    if answer["decision"] is None:
        why = answer.get("failed", "no decision matched")
        return f"{answer['id']}: {why} -> {models}"
    return f"{answer['id']}: {answer['decision']} ({answer['confidence']:.4g}) -> {models}"


def entries_in(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects in the JSON file *path*, a list or one; raises `VectorError` or `ConfigError`."""
    try:
        entries = orjson.loads(read_text(path).removeprefix("\ufeff"))
    except orjson.JSONDecodeError as error:
        raise VectorError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise VectorError(f"{path}: a list of objects {{id, recipe?, signals}} is needed")
    return entries


def observed_in(path: Path) -> list[Observations]:
    """Return the signals of every entry of *path*; raises `VectorError`, which names the entry."""
    return [
        of_entries(_given(entry), f"{path}: entry {number} ({entry.get('id')!r})")
        for number, entry in enumerate(entries_in(path))
    ]


def _given(entry: Mapping[str, Any]) -> object:
    given = entry.get("signals")
    return {} if given is None else given


def golden(cases: Path, policies: Path, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Iterate over the answers to golden *cases*; raises `ConfigError` or `VectorError`, naming the line."""
    load_plugins()
    texts = {line["policy"]: line["yaml"] for line in _objects(policies, ("policy", "yaml"))}
    judges: dict[str, Judge] = {}
    for line in _objects(cases, ("id", "policy", "signals")):
        name = line["policy"]
        if name not in texts:
            raise VectorError(f"{cases}: case {line['id']!r} names policy {name!r}, which {policies} lacks")
        if name not in judges:
            judges[name] = Judge(_ruled(texts[name], name, environment))
        yield {"id": line["id"], **judges[name].answer(of_case(line["signals"]))}


def _ruled(text: str, name: str, environment: Mapping[str, str]) -> Policy:
    """Return the policy in *text* whatever a loader would refuse: cases are about its rules alone.

    A case may leave out what its rules do not need, such as the knowledge bases behind given metrics.
    """
    reading = Policy.read(text, name, environment)
    return reading.policy if reading.policy is not None else reading.accepted()


def _objects(path: Path, needed: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for number, raw in enumerate(raw_lines_of(path), start=1):
        if not raw.strip():
            continue
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise VectorError(f"{path}:{number}: not valid JSON") from None
        if not isinstance(line, dict) or not set(needed) <= set(line):
            raise VectorError(f"{path}:{number}: an object with {', '.join(needed)} is needed")
        yield line


def _explain(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    config: Needed,
    *,
    signals: Signals = None,
    request: Annotated[
        Path | None, typer.Option(help="JSON: a request, {text}, {messages, ...} or {body, headers}.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The recipe of the request; default: the root's.")] = "",
    as_json: Json = False,
) -> None:
    """Tell how a policy decides for signals or for a request: every decision, condition by condition.

    Of a request the heuristic signals are computed; what needs a classifier is unknown. Exits 2 for what
    cannot be read.
    """
    if (signals is None) == (request is None):
        _refuse("explain", "give either --signals or --request")
    try:
        policy = read_policy(config, context.obj)
        found = _of_signals(signals) if signals else _of_request(policy, Path(str(request)), recipe)
        answers = [
            {"id": name, **Judge(policy, scope).answer(seen, absent=absent, full=True)}
            for name, scope, seen, absent in found
        ]
    except _UNUSABLE as error:
        _refuse("explain", error)
    if as_json:
        typer.echo(orjson.dumps(answers, option=orjson.OPT_INDENT_2))
        return
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for answer in answers:
        console.print(drawn(answer))


_Vectors = list[tuple[object, str, Observations, str]]


def _of_signals(path: Path) -> _Vectors:
    return [
        (entry.get("id"), str(entry.get("recipe") or ""), seen, KNOWN)
        for entry, seen in zip(entries_in(path), observed_in(path), strict=True)
    ]


def _of_request(policy: Policy, path: Path, recipe: str) -> _Vectors:
    entries = entries_in(path)
    if len(entries) != 1:
        raise VectorError(f"{path}: one request is needed, not {len(entries)}")
    Judge(policy, recipe)  # refuses a recipe that is none
    previewer = Previewer(policy, recipe)
    rows = previewer.observe(content_of(entries[0], previewer.identity))
    return [(entries[0].get("id"), recipe, Observations.of(list(rows)), ABSENT)]


def _diff(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    one: Needed,
    other: Needed,
    *,
    log: Annotated[
        str | None, typer.Option(help="A kept log or an archive: what differs for its requests.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a comment for a pull request.")] = False,
    as_json: Json = False,
) -> None:
    """Tell which decisions, rules, signals and models differ between two policies.

    Exits 0 if they are the same policy, 1 if not, 2 for what cannot be read. With --log exits 1 if a
    decision marked `safety: true` is won or lost by any request, 4 if over 1 % lack signals, else 0.
    """
    try:
        policies = read_policy(one, context.obj), read_policy(other, context.obj)
    except ConfigError as error:
        _refuse("diff", error)
    if log is not None:
        form = "json" if as_json else "markdown" if markdown else "text"
        raise typer.Exit(diff_over(log, *policies, form))
    if markdown:
        _refuse("diff", "--markdown needs --log")
    found = difference(*policies)
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2) if as_json else "\n".join(lines_of(found)))
    raise typer.Exit(OK if found["same"] else NO)
