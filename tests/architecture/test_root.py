"""The root of the repository holds what it is known to hold, and the rooms are ours."""

import importlib

import pytest

from tests.architecture.repository import ROOMS, ROOT, ignored, sources

KNOWN = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "docs",
    "pyproject.toml",
    "requirements.lock",
    "signalbox.py",
    "tests",
    *ROOMS,
}


def test_the_root_holds_nothing_unknown() -> None:
    """A new name at the root is a decision: it belongs into a room, or into this list."""
    found = {path.name for path in ROOT.iterdir() if not ignored(path.name)}

    assert found - KNOWN == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_ours_and_not_a_package_of_the_registry(room: str) -> None:
    """`agents` is also the name of a foreign package; what is imported is this repository's folder."""
    package = importlib.import_module(room)

    assert package.__file__ == str(ROOT / room / "__init__.py")


def test_the_environment_comes_from_the_lock_alone() -> None:
    """The lock pins every package by hash and names neither an index nor an address."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    strangers = [line for line in lines if line.startswith("-") or "://" in line or " @ " in line]
    packages = [line for line in lines if line[:1].isalnum()]

    assert strangers == []
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)


def test_nothing_imports_the_front_door() -> None:
    """signalbox.py mounts commands; whatever it offered to others would be logic in it."""
    importers = [str(source) for source in sources() if "signalbox" in source.imports()]

    assert [name for name in importers if not name.startswith("tests/")] == []
