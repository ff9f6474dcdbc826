"""The commands of ``signalbox policy`` about a file alone: what they print, and how they exit."""

import gzip
import json
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

import signalbox
from agents.policy import Policy
from streams.app import load_registries

CASES = Path(__file__).parents[1] / "contracts" / "golden_policy" / "load_cases.jsonl.gz"
ODD = """# kept
routing:
  stratgy: priority
  signals: {keywords: [{name: no, operator: OR, keywords: [x]}]}
  decisions: [{name: d, rules: {type: keyword, name: no}}]
"""
load_registries()


def run(*words: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of a command."""
    result = CliRunner().invoke(signalbox.app, ["policy", *words])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def odd(tmp_path: Path) -> str:
    """Return the path of a file with an oddity and an unknown key."""
    path = tmp_path / "odd.yaml"
    path.write_text(ODD, encoding="utf-8")
    return str(path)


def test_check_prints_findings_with_their_places(odd: str) -> None:
    """Warnings do not fail the check, unless an unknown key is to be an error."""
    code, out, _ = run("check", odd, "--json")
    found = {each["code"]: each for each in json.loads(out)["findings"]}

    assert code == 0
    assert found["unknown-key"]["where"].startswith(f"{odd}:3:")
    assert "strategy?" in found["unknown-key"]["message"]
    assert found["yaml11-boolean"]["severity"] == "warning"
    assert run("check", odd, "--strict")[0] == 1
    assert "yaml11-boolean" in run("check", odd)[1]


def test_a_refused_file_is_an_error_with_its_place(tmp_path: Path) -> None:
    """What cannot be used exits 1 on check; hash and modernize exit 2 and say where."""
    path = tmp_path / "bad.yaml"
    path.write_text("routing:\n  strategy: random\n", encoding="utf-8")

    assert run("check", str(path))[0] == 1
    for command in ("hash", "modernize"):
        code, out, err = run(command, str(path))
        assert (code, out) == (2, "")
        assert f"{path}:2:3: routing.strategy" in err
    assert run("check", str(tmp_path / "none.yaml"))[0] == 2


def test_modernize_prints_the_file_without_oddities(odd: str, tmp_path: Path) -> None:
    """Comments stay, the oddity is gone."""
    code, out, _ = run("modernize", odd)
    again = tmp_path / "again.yaml"
    again.write_text(out, encoding="utf-8")

    assert code == 0
    assert out.startswith("# kept\n")
    assert "yaml11-boolean" not in run("check", str(again))[1]


def test_hash_is_that_of_the_policy(odd: str) -> None:
    """The hash is printed alone."""
    assert run("hash", odd) == (0, Policy.parse(ODD).hash + "\n", "")


def test_load_prints_a_verdict_a_line() -> None:
    """Every golden case gets verdict, stage and blamed field, in order."""
    code, out, _ = run("load", "--cases", str(CASES), "--json")
    rows = [orjson.loads(line) for line in out.splitlines()]
    with gzip.open(CASES, "rt", encoding="utf-8") as lines:
        ids = [json.loads(line)["id"] for line in lines]

    assert code == 0
    assert [row["id"] for row in rows] == ids
    assert {tuple(row) for row in rows} == {("id", "verdict", "stage", "field")}
    assert {row["verdict"] for row in rows} == {"accept", "reject"}


def test_cases_that_are_none_are_bad_input(tmp_path: Path) -> None:
    """A line without a configuration exits 2 and names the line."""
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": 1}\n', encoding="utf-8")
    code, _, err = run("load", "--cases", str(path))

    assert code == 2
    assert f"{path}:1" in err


def test_the_schema_is_published() -> None:
    """The schema is one JSON document."""
    code, out, _ = run("schema")

    assert code == 0
    assert json.loads(out)["$defs"]
