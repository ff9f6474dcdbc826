"""The commands of replay: what they print, and which exit code says what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from replay.cli import explain_view, register
from replay.view import MemoryLog
from schemas.codec import Codec
from schemas.envelope import Envelope
from schemas.logdir import LogDir
from tests.replay.logs import LogBuilder, folder_of, kept

APP = typer.Typer()
register(APP)


@APP.command()
def other() -> None:
    """Stand beside the replay commands, as the front door's others do."""


def _kept(folder: Path, count: int = 6) -> LogBuilder:
    builder = LogBuilder()
    for number in range(count):
        builder.decided(number)
    kept(str(folder), builder.envelopes, builder.policies)
    return builder


def _forged(builder: LogBuilder) -> list[Envelope]:
    codec = Codec()
    at = next(i for i, e in enumerate(builder.envelopes) if e.topic == "decisions")
    decision = codec.decode(builder.envelopes[at].value)
    forged = codec.encode(replace(decision, core=replace(decision.core, chosen="gigantic")))
    return [replace(e, value=forged) if i == at else e for i, e in enumerate(builder.envelopes)]


def test_a_log_that_is_reproduced_exits_0(tmp_path: Path) -> None:
    """The line says how many of how many."""
    _kept(tmp_path / "log")
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log")])

    assert result.exit_code == 0
    assert result.stdout == "reproduced 6 of 6\n"


def test_json_goes_to_stdout(tmp_path: Path) -> None:
    """One object with the agreed keys, and nothing else."""
    _kept(tmp_path / "log")
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log"), "--json"])
    report = json.loads(result.stdout)

    assert result.exit_code == 0
    assert (report["decisions"], report["reproduced"], report["changed"]) == (6, 6, 0)
    assert report["first_difference"] is None


def test_a_changed_decision_exits_1_and_is_named(tmp_path: Path) -> None:
    """The first difference is in the JSON, and the error's name on stderr."""
    builder = _kept(tmp_path / "log")
    kept(str(tmp_path / "log"), _forged(builder), builder.policies)
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log"), "--json"])
    report = json.loads(result.stdout)

    assert result.exit_code == 1
    assert report["changed"] == 1
    assert report["first_difference"]["field"] == "core.chosen"
    assert report["first_difference"]["logged"] == "'gigantic'"
    assert "NondeterminismError: the decision of request" in result.stderr


def test_a_log_without_decisions_exits_4(tmp_path: Path) -> None:
    """Nothing to prove is not a proof."""
    _kept(tmp_path / "log", count=0)
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log")])

    assert result.exit_code == 4
    assert "holds no decision" in result.stderr


def test_a_log_that_lacks_signals_exits_4(tmp_path: Path) -> None:
    """An incomplete log is said to be incomplete, and what is missing is named."""
    builder = _kept(tmp_path / "log")
    envelopes = [e for e in builder.envelopes if e.topic != "signals.embedding"]
    kept(str(tmp_path / "log"), envelopes, builder.policies)
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log")])

    assert result.exit_code == 4
    assert "6 lack signals" in result.stdout
    assert "first: signals embedding@" in result.stderr


def test_no_log_or_a_damaged_one_exits_2(tmp_path: Path) -> None:
    """What is wrong with the directory is on stderr."""
    nothing = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "nothing")])
    _kept(tmp_path / "log")
    path = tmp_path / "log" / folder_of("decisions") / "0.avro"
    path.write_bytes(path.read_bytes()[:-20])
    damaged = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log")])

    assert nothing.exit_code == damaged.exit_code == 2
    assert "not a log" in nothing.stderr
    assert "truncated or corrupt" in damaged.stderr


def test_an_altered_policy_exits_2(tmp_path: Path) -> None:
    """A policy text that is not what its hash says is bad input."""
    builder = _kept(tmp_path / "log")
    altered = {key: text.replace("small", "large") for key, text in builder.policies.items()}
    kept(str(tmp_path / "log"), builder.envelopes, altered)
    result = CliRunner().invoke(APP, ["replay", "decide", "--log", str(tmp_path / "log")])

    assert result.exit_code == 2
    assert "was altered" in result.stderr


def test_explain_prints_a_tree_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both forms exit 0 from a kept log and from one in memory."""
    builder = _kept(tmp_path / "log")
    request_id = next(e.key for e in builder.envelopes if e.topic == "requests") or b""

    assert explain_view(LogDir(tmp_path / "log"), request_id.hex(), as_json=False) == 0
    assert f"request {request_id.hex()}" in capsys.readouterr().out
    assert explain_view(MemoryLog(builder.envelopes, {}), request_id.hex().upper(), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["request_id"] == request_id.hex()


def test_explain_of_an_unknown_id_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is no."""
    _kept(tmp_path / "log")

    assert explain_view(LogDir(tmp_path / "log"), "00" * 16, as_json=True) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no record about request 0000" in captured.err


@pytest.mark.parametrize("text", ["", "12", "zz" * 16])
def test_explain_of_no_id_at_all_exits_2(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error is told apart from a request that is not there."""
    assert explain_view(MemoryLog([], {}), text, as_json=False) == 2
    assert "32 hex digits" in capsys.readouterr().err


def test_explain_of_a_damaged_log_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The damaged file is named."""
    builder = _kept(tmp_path / "log")
    request_id = next(e.key for e in builder.envelopes if e.topic == "requests") or b""
    for path in (tmp_path / "log").glob("*requests*/*.avro"):
        path.write_bytes(path.read_bytes()[:-20])

    assert explain_view(LogDir(tmp_path / "log"), request_id.hex(), as_json=False) == 2
    assert "truncated or corrupt" in capsys.readouterr().err
