"""The command line: one JSON object or one line of error, and the stated exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from infra.simulated_llm.profile import parse
from schemas.logdir import LogDir
from signalbox import app
from tests.streams.batch_world import POLICY, PROFILE, batch_file, line

QUICK = [line("a", "Python"), line("b", model="small")]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, with no broker set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGNALBOX_BROKER", raising=False)
    Path("policy.yaml").write_text(POLICY)
    Path("profile.yaml").write_text(PROFILE)
    parse(PROFILE, "profile.yaml")


def call(*arguments: str) -> Result:
    """Run `signalbox` in this process."""
    return CliRunner().invoke(app, list(arguments))


def run(file: Path, *more: str, out: str = "out.jsonl") -> Result:
    """Run a batch file under the test policy."""
    return call("run", str(file), "--out", out, "--policy", "policy.yaml", "--profile", "profile.yaml", *more)


def test_run_writes_results_and_a_log_that_proves_itself(tmp_path: Path) -> None:
    """The report is one JSON object; the log explains each request and reproduces every decision."""
    done = run(batch_file(tmp_path, QUICK), "--json", "--keep-log", "log", "--run", "mine")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report == {
        "run": "mine", "lines": 2, "ok": 2, "failed": 0, "out": "out.jsonl", "log": "log",
        "records": report["records"],
    }  # fmt: skip
    rows = [json.loads(row) for row in Path("out.jsonl").read_bytes().splitlines()]
    told = call("explain", rows[0]["response"]["request_id"], "--log", "log", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["outcome"] == "answered"
    proved = call("replay", "decide", "--log", "log", "--json")
    assert proved.exit_code == 0
    assert {k: json.loads(proved.stdout)[k] for k in ("decisions", "reproduced", "changed")} == {
        "decisions": 2, "reproduced": 2, "changed": 0,
    }  # fmt: skip


def test_one_failed_line_makes_the_exit_code_1(tmp_path: Path) -> None:
    """The results are written all the same."""
    done = run(batch_file(tmp_path, [*QUICK, b"{"]), "--json")
    assert (done.exit_code, json.loads(done.stdout)["failed"]) == (1, 1)
    assert len(Path("out.jsonl").read_bytes().splitlines()) == 3


def test_the_tenant_of_the_environment_names_the_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` and `submit` take the same default tenant, so that the same file is the same run."""
    file = batch_file(tmp_path, QUICK)
    given = json.loads(run(file, "--json", "--tenant", "acme").stdout)["run"]
    monkeypatch.setenv("SIGNALBOX_TENANT", "acme")
    assert json.loads(run(file, "--json").stdout)["run"] == given


BAD: dict[str, tuple[list[str], str]] = {
    "an empty file": (["run", "empty", "--out", "o"], "one JSON object a line"),
    "a missing file": (["run", "none", "--out", "o"], "none: No such file"),
    "a folder for a file": (["run", ".", "--out", "o"], "Is a directory"),
    "an output in no folder": (["run", "in.jsonl", "--out", "no/where"], "cannot write no/where"),
    "a folder for an output": (["run", "in.jsonl", "--out", "."], "cannot write"),
    "a log over other files": (["run", "in.jsonl", "--out", "o", "--keep-log", "."], "cannot keep a log"),
    "an unknown policy": (["run", "in.jsonl", "--out", "o", "--policy", "none"], "cannot read policy none"),
    "a policy that is no YAML": (
        ["run", "in.jsonl", "--out", "o", "--policy", "broken"],
        "broken:3:7: not valid YAML",
    ),
    "a policy with other keys": (["run", "in.jsonl", "--out", "o", "--policy", "wrong"], "routin"),
    "a policy that is no text": (["run", "in.jsonl", "--out", "o", "--policy", "bytes"], "cannot read"),
    "an unknown profile": (["run", "in.jsonl", "--out", "o", "--profile", "none"], "none"),
    "an invalid profile": (["run", "in.jsonl", "--out", "o", "--profile", "wrong"], "providers"),
    "no output": (["run", "in.jsonl"], "--out"),
    "waiting for nothing": (["submit", "in.jsonl", "--wait"], "--out"),
    "waiting and not waiting": (["submit", "in.jsonl", "--detach", "--out", "o"], "--detach"),
    "an address that is none": (["submit", "in.jsonl", "--broker", "x"], "HOST:PORT"),
    "an id that is none": (["explain", "zz", "--log", "log"], "not a log"),
    "a log that is none": (["replay", "decide", "--log", "none"], "not a log"),
    "up with a wrong policy": (["up", "--policy", "wrong"], "routin"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    """The error says what is wrong and where; standard output stays empty, nothing is written."""
    arguments, said = BAD[name]
    Path("empty").write_text(" \n")
    Path("broken").write_text("version: v0.3\nproviders: [\n  a: b: c")
    Path("wrong").write_text("version: v0.3\nroutin: 5\n")
    Path("bytes").write_bytes(b"\xff\xfe\x00")
    batch_file(tmp_path, QUICK)
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("o").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "in.jsonl"],
        ["run-status", "mine"],
        ["explain", "0" * 32],
        ["worker", "decision"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_a_broker_the_exit_code_is_3(tmp_path: Path, arguments: list[str]) -> None:
    """Where no stack runs, and where nobody listens, the error says how to start one."""
    batch_file(tmp_path, QUICK)
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "signalbox up" in done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = call(*arguments, "--broker", address)
    assert (done.exit_code, done.stdout) == (3, "")
    assert address in done.stderr


def test_a_request_that_the_log_does_not_hold_is_a_no(tmp_path: Path) -> None:
    """`explain` of an unknown id exits 1, of something that is no id 2."""
    run(batch_file(tmp_path, QUICK), "--keep-log", "log")
    assert call("explain", "0" * 32, "--log", "log").exit_code == 1
    assert call("explain", "zz", "--log", "log").exit_code == 2


def test_run_is_a_program_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, standard output holds the JSON object and nothing else, not even logs."""
    file = batch_file(tmp_path, QUICK)
    argv = [sys.executable, "-m", "signalbox", "run", str(file), "--out", "o", "--policy", "policy.yaml"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*argv, "--profile", "profile.yaml", "--json"], capture_output=True, check=False, timeout=110,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, 2)


def test_the_log_has_its_contracted_form(tmp_path: Path) -> None:
    """Folders carry full topic names; the manifest names topics, schemas and policies as promised."""
    run(batch_file(tmp_path, QUICK), "--keep-log", "log")
    manifest: dict[str, Any] = json.loads(Path("log/manifest.json").read_text())
    assert {"cluster_id", "topics", "schemas", "policies"} <= manifest.keys()
    assert manifest["topics"]["signalbox.requests.v1"]["partitions"] == 4
    assert all(set(row) >= {"fingerprint", "schema"} for row in manifest["schemas"].values())
    assert all(yaml.safe_load(text)["version"] == "v0.3" for text in manifest["policies"].values())
    folders = {p.name for p in Path("log").iterdir() if p.is_dir()}
    assert folders <= manifest["topics"].keys()
    assert {"signalbox.requests.v1", "signalbox.decisions.v1", "signalbox.results.v1"} <= folders
    assert LogDir("log").topics().keys() >= {"requests", "decisions", "results"}
