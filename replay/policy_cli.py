"""The commands of ``signalbox policy`` about a file alone; files in, text out, no broker.

Other modules mount their own subcommands on the group that `register` returns.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import orjson
import typer

import agents.selectors
import agents.signals
from agents.errors import ConfigError
from agents.loading.findings import Finding, findings
from agents.loading.reading import SYNTAX, Reading
from agents.loading.schema import schema_of
from agents.policy import Policy
from agents.selectors import selector
from agents.signals import signal

OK, NO, USAGE = 0, 1, 2
Environment = Callable[[], Mapping[str, str]]
File = Annotated[Path, typer.Argument(help="A configuration, YAML.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_TITLE = "Signalbox policy"


def register(app: typer.Typer, environment: Environment) -> typer.Typer:
    """Add the group ``policy`` to *app* and return it, so that others can add to it.

    *environment* is what the files may refer to; commands find it in their context's ``obj``.
    """
    group = typer.Typer(no_args_is_help=True)

    @group.callback()
    def _environment(context: typer.Context) -> None:
        context.obj = environment()

    for name, command in (
        ("hash", _hash),
        ("check", _check),
        ("load", _load),
        ("modernize", _modernize),
        ("schema", _schema),
    ):
        group.command(name)(command)
    app.add_typer(group, name="policy", help="What a policy says, proves and decides; no broker needed.")
    return group


def load_plugins() -> None:
    """Register every signal and selector."""
    signal.load(agents.signals)
    selector.load(agents.selectors)


def read_text(path: Path) -> str:
    """Return the text in *path*, which may be gzipped; raises `ConfigError`."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def read_policy(path: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Policy:
    """Return the policy in *path*, with every plugin loaded; raises `ConfigError`."""
    load_plugins()
    return Policy.parse(read_text(path), str(path), environment)


def _hash(context: typer.Context, path: File) -> None:
    """Print the hash of a policy: the SHA-256 of its normal form.

    Exits 2, naming file, line and path, if the file cannot be used.
    """
    try:
        typer.echo(read_policy(path, context.obj).hash)
    except ConfigError as error:
        raise _refused("hash", error) from None


def _check(
    context: typer.Context,
    path: File,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="An unknown key is an error.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what of a file is refused, ignored, or does what its writer can hardly mean.

    Exits 1 if there is an error, 2 if the file is no YAML document.
    """
    load_plugins()
    try:
        reading = Policy.read(read_text(path), str(path), context.obj)
    except ConfigError as error:
        raise _refused("check", error) from None
    found = [_judged(each, strict=strict) for each in findings(reading, context.obj)]
    if as_json:
        rows = [_row(each, reading) for each in found]
        typer.echo(orjson.dumps({"findings": rows}, option=orjson.OPT_INDENT_2))
    else:
        for each in found:
            typer.echo(_line(each, reading))
        typer.echo(_summary(found), err=True)
    raise typer.Exit(NO if any(each.severity == "error" for each in found) else OK)


def _judged(found: Finding, *, strict: bool) -> Finding:
    if strict and found.code == "unknown-key":
        return Finding("error", found.code, found.path, found.message)
    return found


def _row(found: Finding, reading: Reading[Policy]) -> dict[str, Any]:
    line, column = reading.tree.place(found.path)
    return {
        "severity": found.severity,
        "code": found.code,
        "where": f"{reading.tree.at(found.path)}: {_dotted(found)}",
        "message": found.message,
        "remedy": found.remedy,
        "line": line,
        "column": column,
        "path": _dotted(found),
    }


def _dotted(found: Finding) -> str:
    return ".".join(map(str, found.path))


def _line(found: Finding, reading: Reading[Policy]) -> str:
    place = f"{reading.tree.at(found.path)}: {found.severity}: {_dotted(found)}: {found.message}"
    return f"{place} [{found.code}]" + (f"; ends with {found.remedy}" if found.remedy else "")


def _summary(found: list[Finding]) -> str:
    counts = {kind: sum(each.severity == kind for each in found) for kind in ("error", "warning", "info")}
    return ", ".join(f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in counts.items())


def _load(
    context: typer.Context,
    cases: Annotated[Path, typer.Option("--cases", help='JSON lines with "id" and "yaml"; may be gzipped.')],
    *,
    as_json: Json = False,
) -> None:
    """Print, for each case, whether the original accepts it, at which stage, and the field that it blames."""
    load_plugins()
    try:
        rows = list(_verdicts(read_text(cases), str(cases), context.obj))
    except ConfigError as error:
        raise _refused("load", error) from None
    for row in rows:
        text = f"{row['id']} {row['verdict']} {row['stage']} {row['field'] or ''}".rstrip()
        typer.echo(orjson.dumps(row).decode() if as_json else text)


def _verdicts(text: str, where: str, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            case = orjson.loads(line)
            name, document = case["id"], str(case["yaml"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(f'{where}:{number}: a case is a JSON object with "id" and "yaml"') from None
        try:
            found = Policy.read(document, str(name), environment).verdict
            yield {"id": name, "verdict": found.verdict, "stage": found.stage, "field": found.field}
        except ConfigError:
            yield {"id": name, "verdict": "reject", "stage": "load", "field": SYNTAX}


def _modernize(context: typer.Context, path: File) -> None:
    """Print the file with every oddity ended that a key of ours, or another spelling, can end.

    Exits 2 if the file cannot be used.
    """
    # The library that keeps comments takes 0.1 s to import, which only this command needs.
    from agents.loading.modernizing import modernized  # noqa: PLC0415

    load_plugins()
    try:
        text = read_text(path)
        reading = Policy.read(text, str(path), context.obj)
        reading.accepted()
        typer.echo(modernized(text, findings(reading, context.obj), str(path)), nl=False)
    except ConfigError as error:
        raise _refused("modernize", error) from None


def _schema() -> None:
    """Print the JSON Schema of the configuration format."""
    load_plugins()
    typer.echo(orjson.dumps(schema_of(Policy, _TITLE), option=orjson.OPT_INDENT_2))


def _refused(command: str, error: ConfigError) -> typer.Exit:
    typer.echo(f"policy {command}: {error}", err=True)
    return typer.Exit(USAGE)
