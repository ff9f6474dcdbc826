"""What earlier versions of the engine decided is decided again, byte for byte, by today's."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from replay.decide import decide_again
from replay.view import LogView
from schemas.codec import Codec
from schemas.decision import Decision
from schemas.logdir import LogDir
from schemas.signal import SignalSet
from schemas.topics import DECISIONS, signals_topic
from tests.histories.record import LOGS, POLICIES

PACKED = sorted(LOGS.glob("*.tar.xz"))
LARGEST = 200_000
SHADOWED = {"language:de", "context:short"}


def unpacked(packed: Path, into: Path) -> LogDir:
    """Return the log in *packed*, opened."""
    with tarfile.open(packed) as archive:
        archive.extractall(into, filter="data")
    return LogDir(into / packed.name.removesuffix(".tar.xz"))


def decisions(log: LogView) -> list[Decision]:
    """Return every decision of *log*."""
    codec = Codec(log.schemas().values())
    return [codec.decode_as(Decision, envelope.value) for envelope in log.read(DECISIONS)]


def observed(log: LogView) -> list[SignalSet]:
    """Return every set of signals in *log*."""
    codec = Codec(log.schemas().values())
    topics = [name for name in log.topics() if name.startswith(signals_topic(""))]
    return [codec.decode_as(SignalSet, each.value) for name in topics for each in log.read(name)]


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: path.name)
def test_a_recorded_history_is_reproduced_whole(packed: Path, tmp_path: Path) -> None:
    """Every decision comes out as it was logged, under the policy and the schemas of its time."""
    # New processes with other hash seeds take seconds each: the newest history has them for all.
    again = decide_again(unpacked(packed, tmp_path), seeds=("1",) if packed == PACKED[-1] else ())
    again.check()

    assert again.complete
    assert again.decisions == again.reproduced >= 40
    assert packed.stat().st_size < LARGEST


def test_histories_of_several_engines_are_kept() -> None:
    """A name has date and commit of the engine and the policy; each policy was recorded with some engine."""
    names = [path.name.removesuffix(".tar.xz").split("-") for path in PACKED]

    assert len({tuple(name[:4]) for name in names}) >= 3
    assert {name[4] for name in names} == {path.stem for path in POLICIES.glob("*.yaml")}


def test_the_histories_hold_what_engines_do(tmp_path: Path) -> None:
    """Every outcome of note is in some history: drawn, explored, spent, default, recipe, bypass, shadow."""
    logs = [unpacked(packed, tmp_path) for packed in PACKED]
    cores = [decision.core for log in logs for decision in decisions(log)]
    routed = {core.decision for core in cores}

    assert {core.outcome for core in cores} >= {"routed", "default", "bypassed"}
    assert routed >= {"personal", "hard", "code", "talk", "draft", "rest"}
    assert {core.facts.get("exploration") for core in cores} >= {None, "open", "spent"}
    assert any(core.explored.draw < core.explored.epsilon for core in cores)
    assert any("projection:heavy" in core.matched_rules for core in cores)
    assert {key for log in logs for found in observed(log) for key in found.shadow} >= SHADOWED


def test_a_history_whose_decision_was_altered_is_not_reproduced(tmp_path: Path) -> None:
    """The check can fail: with another policy text under the same hash it says so."""
    folder = unpacked(PACKED[0], tmp_path)
    manifest = tmp_path / PACKED[0].name.removesuffix(".tar.xz") / "manifest.json"
    document = json.loads(manifest.read_text())
    text = {
        name: value.replace('"priority":90', '"priority":1') for name, value in document["policies"].items()
    }
    assert text != document["policies"]
    assert folder.policies() == document["policies"]
    manifest.write_text(json.dumps(document | {"policies": text}))

    with pytest.raises(Exception, match="was altered"):
        decide_again(LogDir(manifest.parent), seeds=())
