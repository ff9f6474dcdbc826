"""Replay as its user runs it: Kafka, Triton, and an archive on S3 whose worker is killed while it writes.

The tests share one stack and the traffic of its fixture; none of them changes it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.local.state import read_state
from replay.archive_care import due
from replay.archive_commits import commits_in
from replay.archive_files import Files
from replay.archive_rows import table_name
from schemas.logdir import LogDir
from tests.architecture.repository import ROOT
from tests.live.held_s3 import HeldS3, held_s3
from tests.replay.test_archive import naive, rows

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("kafka_jars", "triton_environment"),
]

LINES = 40
SECRET = "a-secret-of-this-test"
NOBODY = "127.0.0.1:1"
Row = tuple[object, ...]
PATIENCE_S = 150.0
LOGGED = """
version: v0.3
providers:
  defaults: {default_model: north-small}
  models:
    - name: north-small
      pricing: {prompt_per_1m: 0.15, completion_per_1m: 0.60}
      backend_refs: [{name: north}]
    - name: north-large
      pricing: {prompt_per_1m: 2.50, completion_per_1m: 10.00}
      backend_refs: [{name: north}]
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [Python, SQL, JavaScript]}
    embeddings:
      - {name: maths, threshold: 0.31, candidates: [Prove by induction, Solve the equation for x]}
  decisions:
    - name: sums
      priority: 20
      rules: {type: embedding, name: maths}
      modelRefs: [{model: north-large}]
    - name: code
      priority: 10
      rules: {type: keyword, name: code}
      modelRefs: [{model: north-small}]
"""
RENAMED = LOGGED.replace("name: maths", "name: arithmetic")
"""The same policy, but that no log holds its embedding signal: backfilled, it decides as the other did."""


AIMS: tuple[Callable[[str, bool], bool], ...] = (
    lambda path, copies: "/_commits/" in path and not copies,  # rows are written, nothing is committed
    lambda path, copies: "/_commits/" in path and copies,  # it becomes committed, its files are still hidden
    lambda path, copies: path.endswith(".parquet") and copies,  # a file has both of its names
)
"""Writes of the archive's worker, by path and whether they copy: it is killed before it hears of them."""


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, its JSON object, what it said."""

    code: int
    report: Any
    said: str


def call(*arguments: str) -> Done:
    """Run `signalbox` with --json."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    return Done(done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr)


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "signalbox", *arguments, "--json"]


@dataclass(frozen=True)
class Scene:
    """A running stack whose traffic is over: its folder, what `up` printed, and its archive."""

    folder: Path
    up: dict[str, Any]
    archive: str

    @property
    def ways(self) -> dict[str, tuple[str, ...]]:
        """Return the options that lead to the traffic: the kept log, the archive, the topics."""
        return {
            "log": ("--log", str(self.folder / "log")),
            "archive": ("--log", self.archive),
            "topics": ("--broker", self.up["broker"]),
        }

    def renamed(self) -> tuple[str, str]:
        """Return the options of the policy whose signal no log holds."""
        return "--policy", str(self.folder / "renamed.yaml")

    def decide(self, *options: str) -> dict[str, Done]:
        """Run `replay decide` on every way at once."""
        with ThreadPoolExecutor() as pool:
            done = {
                way: pool.submit(call, "replay", "decide", *lead, *options) for way, lead in self.ways.items()
            }
        return {way: each.result() for way, each in done.items()}

    def kept(self) -> list[Row]:
        """Return the table and place of every record of the kept log that is to be archived."""
        log = LogDir(self.folder / "log")
        kinds = [(table_name(topic), topic) for topic in log.topics()]
        return sorted(
            (kind, e.topic, e.partition, e.offset)
            for kind, topic in kinds
            if kind is not None
            for e in log.read(topic)
        )


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[HeldS3, str]]:
    """A server of the S3 API and the place of an archive on it; credentials are in the environment."""
    with held_s3() as (s3, url), pytest.MonkeyPatch.context() as patch:
        # The scheme is that of the server of this test.
        with urllib.request.urlopen(urllib.request.Request(f"{url}/traffic", method="PUT")):  # noqa: S310
            pass
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield s3, f"s3://traffic/some/folder?endpoint={url}"


@pytest.fixture(scope="module")
def scene(store: tuple[HeldS3, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Start the stack, send the traffic in waves, and kill the archive's worker in the midst of each."""
    folder, (s3, place) = tmp_path_factory.mktemp("replay"), store
    for name, text in (("logged", LOGGED), ("renamed", RENAMED)):
        (folder / f"{name}.yaml").write_text(text)
    where = ("--dir", str(folder / "stack"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FLUSH_S", "0.2"), ("CARE_S", "2"), ("BODIES", "true")):
            patch.setenv(f"SIGNALBOX_ARCHIVE_{name}", value)
        patch.setenv("SIGNALBOX_PARTITIONS", "2")
        started = call("up", "--workers", "--policy", str(folder / "logged.yaml"), "--archive", place, *where)
    assert started.code == 0, started.said
    found = Scene(folder, started.report, place)
    try:
        for number in range(len(AIMS)):
            wave(found, s3, number)
        yield found
    finally:
        call("down", *where)


def wave(scene: Scene, s3: HeldS3, number: int) -> None:
    """Send a part of the requests, and kill the archive's worker at the write that is aimed at."""
    before = archiver(scene)
    lines = (ROOT / "infra/demo/requests.jsonl").read_bytes().splitlines(keepends=True)
    file = scene.folder / f"in-{number}.jsonl"
    file.write_bytes(b"".join(lines[number * LINES : (number + 1) * LINES]))
    options = ["--out", str(scene.folder / "out.jsonl"), "--run", f"wave-{number}", "--wait"]
    options += ["--keep-log", str(scene.folder / "log"), "--dir", str(scene.folder / "stack")]
    s3.hold(AIMS[number])
    with subprocess.Popen(
        command("submit", str(file), *options), cwd=ROOT, stdout=subprocess.DEVNULL
    ) as sending:
        assert s3.wait(), f"nothing was written that is aimed at: {number}"
        os.kill(before, signal.SIGKILL)
        until(lambda: archiver(scene) != before, "the end of the archive's worker")
        s3.let_go()
        assert sending.wait(PATIENCE_S) in {0, 1}  # 1: lines of the file that are refused
    until(lambda: archiver(scene) not in {0, before}, "the next life of the archive's worker")


def archiver(scene: Scene) -> int:
    """Return the process of the archive's worker, 0 while there is none."""
    state = read_state(scene.folder / "stack")
    assert state is not None
    (process,) = [one.process for one in state.workers if one.role == "archive"]
    return 0 if process is None else process.pid


def until(check: Any, what: str) -> None:
    """Return when *check* holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


def test_every_record_is_a_row_once_though_the_worker_was_killed_as_it_wrote(scene: Scene) -> None:
    """By its commits, and to readers of Parquet folders, the archive on S3 has the records of the topics."""
    files, wanted = Files(scene.archive), scene.kept()

    assert len([row for row in wanted if row[0] == "decisions"]) > len(AIMS) * LINES * 0.9
    until(lambda: looked(rows, files) == wanted, "the records of the topics, by the commits")
    until(lambda: at_rest(files), "the end of merging")
    until(lambda: looked(naive, files) == wanted, "the records of the topics, by the folders")


def at_rest(files: Files) -> bool:
    """Tell whether the worker has nothing left to merge; who reads while it does may miss a file."""
    return not any(due(files, place) for place in {commit.place for commit in commits_in(files)})


def looked(look: Callable[[Files], list[Row]], files: Files) -> list[Row]:
    """Return the rows that *look* finds, never one twice; none if a file was merged away before it was read.

    The worker goes on merging. Who reads folders only misses, meanwhile, what is being merged.
    """
    try:
        found = look(files)
    except FileNotFoundError:
        return []
    assert len(set(found)) == len(found)
    return found


def test_no_secret_of_the_archive_is_in_a_file_of_the_stack(scene: Scene) -> None:
    """Its credentials are in no log, no state and no command line."""
    written: dict[Path, bytes] = {}
    for path in (scene.folder / "stack").rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):  # the broker takes files away as it runs
            written[path] = path.read_bytes()

    assert len(written) > 10
    assert [path for path, content in written.items() if SECRET.encode() in content] == []


def test_log_archive_and_topics_give_the_same_answer(scene: Scene) -> None:
    """Under another policy, for a stretch of time; without --backfill too much is unknown: exit 4."""
    times = sorted(e.timestamp for e in LogDir(scene.folder / "log").read("decisions"))
    stretch = ("--since", str(times[len(times) // 4]), "--until", str(times[-5]))
    done = scene.decide(*scene.renamed(), *stretch)
    answer = done["log"].report

    assert {way: each.code for way, each in done.items()} == dict.fromkeys(done, 4), done
    assert answer == done["archive"].report == done["topics"].report
    assert answer["decisions"] == sum(times[len(times) // 4] <= time < times[-5] for time in times) > 50
    assert answer["unknown_share"] > 0.9
    assert [*answer["unknown_signals"]] == ["embedding:arithmetic"]


def test_every_decision_is_made_again_from_log_archive_and_topics(scene: Scene) -> None:
    """Without a policy: the same proof, from some moment on."""
    since = sorted(e.timestamp for e in LogDir(scene.folder / "log").read("decisions"))[50]
    done = scene.decide("--since", str(since))
    answer = done["log"].report

    assert {way: each.code for way, each in done.items()} == dict.fromkeys(done, 0), done
    assert answer == done["archive"].report == done["topics"].report
    assert answer["reproduced"] == answer["decisions"] > 50


def test_triton_computes_the_signals_that_the_traffic_lacks(scene: Scene) -> None:
    """Of the same phrases under another name, so that every decision comes out as the live one did."""
    done = scene.decide(*scene.renamed(), "--backfill", "--triton", scene.up["triton"])
    answer = done["log"].report

    assert {way: each.code for way, each in done.items()} == dict.fromkeys(done, 0), done
    assert answer == done["archive"].report == done["topics"].report
    assert (answer["unknown_share"], answer["changed"]) == (0.0, 0)
    filled = {name: count for name, count in answer["backfill"].items() if count}
    assert filled == dict.fromkeys(("lacking", "observed", "signals"), filled["lacking"])
    assert filled["lacking"] > len(AIMS) * LINES * 0.9
    assert any(row["from"] == row["to"] == "sums" for row in answer["decision_matrix"])


def test_a_triton_that_is_down_is_exit_3_and_not_an_unknown_signal(scene: Scene, tmp_path: Path) -> None:
    """Both commands say that nothing answers at that address, and print no answer without it."""
    lead = (*scene.renamed(), "--triton", NOBODY)
    down = (
        call("replay", "decide", *scene.ways["log"], "--backfill", *lead),
        call("replay", "whatif", foreign_log(tmp_path), *lead),
    )

    assert [(done.code, done.report) for done in down] == [(3, None)] * 2
    assert all(f"Triton at {NOBODY} does not answer" in done.said for done in down)


def test_whatif_asks_triton_about_another_product_s_calls(scene: Scene, tmp_path: Path) -> None:
    """Nothing hangs on what is unknown, and of two calls the one about an equation is one of `sums`."""
    files = (foreign_log(tmp_path), str(ROOT / "infra/whatif/litellm.jsonl"))
    own, both = (
        call("replay", "whatif", *some, *scene.renamed(), "--triton", scene.up["triton"])
        for some in (files[:1], files)
    )

    assert (own.code, both.code) == (0, 0), own.said + both.said
    assert own.report["decisions"] == {"sums": 1, "(default)": 1}
    assert both.report["unknown"]["requests"] == both.report["unknown"]["hanging"] == 0
    assert both.report["calls"] > 50


def foreign_log(folder: Path) -> str:
    """Write an OpenAI request log of two calls and return its path."""
    texts = ("Solve the equation 3x + 4 = 19 for x", "How do I keep a chocolate cake moist?")
    lines = [{"model": "gpt-4o", "messages": [{"role": "user", "content": text}]} for text in texts]
    path = folder / "calls.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)
