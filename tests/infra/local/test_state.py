"""The state file is always whole, and one folder has one stack."""

import json
from pathlib import Path

import pytest

from infra.local.deployment import Endpoints
from infra.local.errors import AlreadyRunning, StackError
from infra.local.identity import Identity
from infra.local.state import (
    STATE,
    ComponentState,
    Phase,
    ProcessState,
    StackState,
    WorkerState,
    held,
    hold,
    read_state,
    write_state,
)

FULL = StackState(
    phase=Phase.RUNNING,
    marker="m",
    supervisor=ProcessState(pid=10, started=1),
    components=(
        ComponentState(name="kafka", address="127.0.0.1:1", process=ProcessState(pid=11, started=2)),
        ComponentState(name="triton", address="triton:8001", settings=Path("/tls.yaml"), models=("encoder",)),
    ),
    endpoints=Endpoints(broker="127.0.0.1:1", providers={"north": "http://127.0.0.1:2/north/v1"}),
    workers=(
        WorkerState(
            role="decision",
            instance=0,
            process=ProcessState(pid=12, started=3),
            log=Path("/log"),
            port_file=Path("/port"),
        ),
        WorkerState(role="decision", instance=1, log=Path("/log"), port_file=Path("/port")),
    ),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Nothing is lost between writer and reader."""
    write_state(tmp_path, FULL)

    assert read_state(tmp_path) == FULL


def test_writing_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    """The new text replaces the old one; no part is left lying about."""
    write_state(tmp_path, FULL)
    write_state(tmp_path, FULL.model_copy(update={"phase": Phase.STOPPED}))

    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_a_folder_without_a_stack_has_no_state(tmp_path: Path) -> None:
    """A missing file or folder means that nothing ever ran there."""
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "missing") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}'])
def test_a_foreign_state_file_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    """A file of another version is never guessed at."""
    (tmp_path / STATE).write_text(text)

    with pytest.raises(StackError, match="then delete the file"):
        read_state(tmp_path)


def test_processes_are_workers_then_components_without_the_external_and_the_dead() -> None:
    """What has to be ended is exactly what was started."""
    assert FULL.processes() == (Identity(12, 3), Identity(11, 2))


def test_a_second_stack_in_a_folder_is_refused(tmp_path: Path) -> None:
    """The one who holds the folder is named a running stack; exit code 2."""
    assert not held(tmp_path)
    with hold(tmp_path):
        assert held(tmp_path)
        with pytest.raises(AlreadyRunning, match="signalbox down") as refused, hold(tmp_path):
            pass
        assert refused.value.exit_code == 2

    assert not held(tmp_path)


def test_the_state_file_is_plain_json(tmp_path: Path) -> None:
    """Scripts may read it."""
    write_state(tmp_path, FULL)

    assert json.loads((tmp_path / STATE).read_text())["workers"][0]["process"]["pid"] == 12
