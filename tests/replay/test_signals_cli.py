"""``signalbox signals run`` on files: the three forms of a request, and lines that are none."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

import signalbox

CONFIG = """
version: v0.3
routing:
  signals:
    keywords: [{name: urgent, operator: OR, keywords: [urgent]}]
    context: [{name: short, max_tokens: 1K}]
    structure: [{name: ask, feature: {type: exists, source: {type: regex, pattern: '[?]'}}}]
    metadata: [{name: red, key: team, predicate: {equals: red}}]
    role_bindings: [{name: b, role: staff, subjects: [{kind: User, name: ana}]}]
    domains: [{name: law, mmlu_categories: [law]}]
  decisions:
    - {name: first, rules: {type: keyword, name: urgent}, modelRefs: [{model: small}]}
providers: {defaults: {default_model: small}, models: [{name: small, backend_refs: [{name: north}]}]}
"""


def run(folder: Path, lines: list[bytes], *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and what was written for *lines*."""
    config, source, out = folder / "c.yaml", folder / "in.jsonl", folder / "out.jsonl"
    config.write_text(CONFIG)
    source.write_bytes(b"\n".join(lines))
    paths = ["--config", str(config), "--in", str(source), "--out", str(out)]
    result = CliRunner().invoke(signalbox.app, ["signals", "run", *paths, *options])
    return result.exit_code, [orjson.loads(line) for line in out.read_bytes().splitlines()]


def seen(line: dict[str, Any]) -> dict[str, bool]:
    """Return ``type:name`` -> whether it matched."""
    return {f"{s['type']}:{s['name']}": s["matched"] for s in line["signals"]}


def test_a_request_is_a_text_messages_or_a_raw_body(tmp_path: Path) -> None:
    """Every form is observed by all declared heuristics, in declaration order; headers and metadata count."""
    messages = [{"role": "user", "content": "urgent?"}]
    lines = [
        {"id": "a", "text": "urgent"},
        {"id": "b", "messages": messages, "metadata": {"team": "red"}, "headers": {"X-Authz-User-Id": "ana"}},
        {"id": 3, "body": '{"messages": [{"role": "user", "content": "calm"}],  "tools":[{ }]}'},
    ]
    code, written = run(tmp_path, [orjson.dumps(line) for line in lines], "--only", "heuristic")

    assert code == 0
    assert [line["id"] for line in written] == ["a", "b", 3]
    assert seen(written[0]) == {
        "context:short": True,
        "keyword:urgent": True,
        "metadata:red": False,
        "authz:staff": False,
        "structure:ask": False,
    }
    assert all(seen(written[1]).values())
    [tokens] = [s["value"] for s in written[2]["signals"] if s["type"] == "context"]
    assert tokens == 2 + 4 + 8 + len("{ }")
    assert set(written[0]["signals"][0]) == {"type", "name", "matched", "confidence", "value", "status"}


def test_what_needs_a_classifier_is_skipped_and_says_so(tmp_path: Path) -> None:
    """Without --only every declared signal has a row; nothing waits for Triton."""
    _, [line] = run(tmp_path, [b'{"id": 1, "text": "hi"}'])
    [domain] = [s for s in line["signals"] if s["type"] == "domain"]

    assert (domain["status"], domain["matched"]) == ("skipped", False)
    assert domain["reason"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b'"x"',
        b'{"id": 1}',
        b'{"id": 1, "text": 5}',
        b'{"text": "no id"}',
        b'{"id": 1, "messages": "x"}',
        b'{"id": 1, "body": "[1]"}',
        b'{"id": 1, "body": "{"}',
        b'{"id": 1, "text": "x", "headers": [1]}',
        b'{"id": 1, "messages": [], "metadata": {"k": 1}}',
        b"\xff\xfe",
    ],
)
def test_a_line_that_is_no_request_gets_an_error_line(tmp_path: Path, raw: bytes) -> None:
    """The others are observed all the same, and the exit code is 1."""
    code, written = run(tmp_path, [raw, b'{"id": 2, "text": "urgent"}'])

    assert code == 1
    assert written[0]["error"]["code"]
    assert "urgent" not in written[0]["error"]["message"]
    assert seen(written[1])["keyword:urgent"]


def test_the_options_come_in_pairs(tmp_path: Path) -> None:
    """Half of a pair, both pairs, or another --only is a usage error that says what to give."""
    for options in (["--config", "x"], ["--cases", "x", "--in", "y"], []):
        out = str(tmp_path / "o")
        result = CliRunner().invoke(signalbox.app, ["signals", "run", "--out", out, *options])

        assert result.exit_code == 2
        assert "--cases and --policies" in result.stderr
