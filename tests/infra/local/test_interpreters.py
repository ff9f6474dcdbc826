"""Which interpreters can host Triton's Python backend, and what is said of the others."""

import sys
from dataclasses import replace
from pathlib import Path

from infra.local.interpreters import Interpreter, probe

GOOD = Interpreter(Path("/p"), (3, 11), Path("/lib"), has_shared_library=True, has_venv=True)


def test_a_supported_version_with_library_and_venv_has_no_obstacle() -> None:
    """Such an interpreter is taken."""
    assert GOOD.obstacle is None


def test_each_obstacle_names_what_to_install() -> None:
    """The user reads the package's name."""
    assert "is 3.13" in (replace(GOOD, version=(3, 13)).obstacle or "")
    assert "libpython3.11" in (replace(GOOD, has_shared_library=False).obstacle or "")
    assert "python3.11-venv" in (replace(GOOD, has_venv=False).obstacle or "")


def test_this_interpreter_tells_its_version() -> None:
    """Probing runs the interpreter and believes what it says."""
    found = probe(Path(sys.executable))

    assert found is not None
    assert found.version == sys.version_info[:2]


def test_what_does_not_run_is_no_interpreter(tmp_path: Path) -> None:
    """A broken shim on PATH is passed over."""
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)

    assert probe(shim) is None
    assert probe(tmp_path / "missing") is None
