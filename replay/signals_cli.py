"""The command ``signalbox signals run``: what heuristics observe in a file of requests, without a broker."""

from __future__ import annotations

import gzip
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from agents.content import Content, Identity
from agents.errors import ConfigError, InvalidRecord
from agents.policy import Policy
from agents.refusal import metadata_refusal
from replay.policy_cli import Environment, load_plugins, read_policy
from replay.previewing import Previewer, is_empty, refusal_of
from schemas.signal import Observation

OK, NO, USAGE = 0, 1, 2
_UNREAD = frozenset({"context", "language"})
"""Types of which a labelled row tells the number: rules do not read it."""

In = Annotated[Path | None, typer.Option("--in", help="Requests, one JSON object a line.")]
Config = Annotated[Path | None, typer.Option(help="A configuration, YAML.")]
Cases = Annotated[Path | None, typer.Option(help="Golden cases, JSON lines (may be gzipped).")]
Policies = Annotated[Path | None, typer.Option(help="The configurations that the cases name.")]
Out = Annotated[Path, typer.Option(help="Where to write one JSON object a line.")]
Only = Annotated[str | None, typer.Option(help="heuristic: leave out what needs a classifier.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Answer = Callable[[Any], dict[str, Any]]


def register(app: typer.Typer, environment: Environment) -> None:
    """Add the group ``signals`` to *app*; *environment* is what configurations may refer to."""
    group = typer.Typer(no_args_is_help=True)

    @group.callback()
    def _environment(context: typer.Context) -> None:
        context.obj = environment()

    group.command("run")(_run)
    app.add_typer(group, name="signals", help="What signals observe in a request; no broker needed.")


def _run(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    *,
    out: Out,
    config: Config = None,
    in_: In = None,
    cases: Cases = None,
    policies: Policies = None,
    only: Only = None,
    as_json: Json = False,
) -> None:
    """Observe every request of a file with the signals of a configuration.

    Exits 1 if a line could not be observed (it gets an error line), 2 for what cannot be read.
    """
    try:
        source, answer = _asked((config, in_), (cases, policies), only, context.obj)
        counts = _written(source, answer, out)
    except (ConfigError, OSError) as error:
        typer.echo(f"signals run: {error}", err=True)
        raise typer.Exit(USAGE) from None
    typer.echo(
        orjson.dumps(counts).decode() if as_json else f"{counts['lines']} lines, {counts['failed']} failed"
    )
    raise typer.Exit(NO if counts["failed"] else OK)


def _asked(
    plain: tuple[Path | None, Path | None],
    golden: tuple[Path | None, Path | None],
    only: str | None,
    environment: Mapping[str, str],
) -> tuple[Path, Answer]:
    """Return the file to read and what answers a line of it."""
    if only not in {None, "heuristic"}:
        raise ConfigError(f"--only is heuristic or left out, not {only}")
    if all(plain) and not any(golden):
        previewer = Previewer(read_policy(Path(str(plain[0])), environment), every=True)
        return Path(str(plain[1])), _plainly(previewer, heuristic_only=only is not None)
    if all(golden) and not any(plain):
        return Path(str(golden[0])), _golden(Path(str(golden[1])))
    raise ConfigError("give --config and --in, or --cases and --policies")


def _written(source: Path, answer: Answer, out: Path) -> dict[str, int]:
    counts = {"lines": 0, "failed": 0}
    with out.open("wb") as sink:
        for number, raw in enumerate(lines_of(source), start=1):
            if not raw.strip():
                continue
            said = _answered(number, raw, answer)
            counts["lines"] += 1
            counts["failed"] += "error" in said
            sink.write(orjson.dumps(said) + b"\n")
    return counts


def lines_of(path: Path) -> Iterator[bytes]:
    """Iterate over the lines of *path*, gzipped or not, without a byte order mark; raises OSError."""
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else path.open("rb") as lines:
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix(BOM_UTF8)


def _answered(number: int, raw: bytes, answer: Answer) -> dict[str, Any]:
    """Return what *answer* says to a line; what cannot be read is told, never raised."""
    line: Any = None
    try:
        line = orjson.loads(raw)
        return answer(line)
    except orjson.JSONDecodeError:
        why = "the line is not valid JSON"
    except (InvalidRecord, TypeError, ValueError, LookupError, AttributeError) as error:
        why = str(error) if isinstance(error, InvalidRecord | ConfigError) else _MALFORMED
    known = line.get("id") if isinstance(line, dict) else None
    return {"id": known, "line": number, "error": {"code": "invalid_request", "message": why}}


_MALFORMED = "a line is an object with id and one of text (a string), messages (a list) or body (a string)"


def _plainly(previewer: Previewer, *, heuristic_only: bool) -> Answer:
    def answer(line: Mapping[str, Any]) -> dict[str, Any]:
        content = content_of(line, previewer.identity)
        refused = metadata_refusal(content.document)
        if refused is not None:
            error = {"code": refused.code, "message": refused.message}
            return {"id": line["id"], "http_status": 400, "error": error}
        rows = previewer.observe(content)
        return {"id": line["id"], "signals": list(_signals(rows, heuristic_only=heuristic_only))}

    return answer


def content_of(line: Mapping[str, Any], identity: Identity) -> Content:
    """Return the request of an input line; raises `InvalidRecord` if it has none."""
    headers = {str(k).lower(): str(v) for k, v in (line.get("headers") or {}).items()}
    body = line.get("body")
    if isinstance(body, str):
        return Content(body.encode("utf-8", "replace"), headers, identity)
    if isinstance(line.get("text"), str):
        document: dict[str, Any] = {"messages": [{"role": "user", "content": line["text"]}]}
    elif isinstance(line.get("messages"), list):
        document = {key: value for key, value in line.items() if key not in {"id", "headers", "text", "body"}}
    elif isinstance(body, dict):
        document = body
    else:
        raise InvalidRecord(_MALFORMED)
    if isinstance(line.get("metadata"), dict):
        document = {**document, "metadata": line["metadata"]}
    return Content(orjson.dumps(document), headers, identity)


def _signals(rows: list[Observation], *, heuristic_only: bool) -> Iterator[dict[str, Any]]:
    """Iterate over *rows* without labels; a number that is told by label stands at each rule of its type."""
    told = {row.type: row.value for row in rows if row.label and row.type in _UNREAD}
    for row in rows:
        if row.label or (heuristic_only and row.status == "skipped"):
            continue
        shown = {
            "type": row.type,
            "name": row.name,
            "matched": row.matched,
            "confidence": _number(row.confidence),
            "value": _number(told.get(row.type, row.value)),
            "status": row.status,
        }
        yield shown | ({"reason": row.reason} if row.reason else {})


def _number(number: float) -> float | None:
    return number if number == number else None  # noqa: PLR0124 - NaN is no number


def _golden(policies: Path) -> Answer:
    load_plugins()
    texts = {line["policy"]: line["yaml"] for line in map(orjson.loads, lines_of(policies))}
    known: dict[str, tuple[Policy, Previewer]] = {}

    def answer(line: Mapping[str, Any]) -> dict[str, Any]:
        name = line["policy"]
        if name not in known:
            policy = Policy.parse(texts[name], name)
            known[name] = (policy, Previewer(policy))
        policy, previewer = known[name]
        request = line["request"]
        content = Content(
            request["body"].encode("utf-8", "replace"), request.get("headers") or {}, policy.identity
        )
        return {"id": line["id"], **_case(policy, previewer, content)}

    return answer


def _case(policy: Policy, previewer: Previewer, content: Content) -> dict[str, Any]:
    """Return what the original's data plane would publish for a request."""
    refused = refusal_of(policy, "", content)
    rows = [] if refused is not None or is_empty(content) else previewer.observe(content)
    status = {} if refused is None else {"http_status": refused[0]}
    matches: dict[str, list[str]] = {}
    for row in rows:
        if row.matched:
            matches.setdefault(row.type, []).append(row.name)
    numbers = [row for row in rows if row.type not in _UNREAD]
    confidences = {f"{r.type}:{r.name}": r.confidence for r in numbers if r.confidence == r.confidence}
    values = {_key(row): row.value for row in numbers if row.value == row.value}
    tokens = [int(row.value) for row in rows if row.type == "context" and row.label]
    decision = None
    if rows:
        preview = previewer.decide(rows)
        decision = preview.decision or None
        if preview.projections:
            matches["projection"] = list(preview.projections)
            confidences |= {f"projection:{name}": c for name, c in preview.projections.items()}
    return {
        **status,
        "matches": matches,
        "confidences": confidences,
        "values": values,
        "token_count": tokens[0] if tokens else 0,
        "decision": decision,
    }


def _key(row: Observation) -> str:
    return f"{row.type}:{row.name}:{row.label}" if row.label else f"{row.type}:{row.name}"
