"""The demo's folder: ours alone is emptied, and one demo at a time fills it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.errors import ConfigError
from infra.local.demo import DemoOptions, run_demo
from infra.local.demo_folder import MARKER, cleared
from infra.local.errors import AlreadyRunning, UsageError
from infra.local.routing import DEFAULT_POLICY


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    """Folders on the way are made too, and nothing but the marker lies in the new one."""
    with cleared(tmp_path / "out" / "demo") as folder:
        assert [path.name for path in folder.root.iterdir()] == [MARKER]


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    """A second demo finds an empty folder, folders and files of the first are gone."""
    with cleared(tmp_path / "demo") as folder:
        folder.results.write_text("old")
        (folder.log / "inside").mkdir(parents=True)
    with cleared(tmp_path / "demo") as folder:
        assert [path.name for path in folder.root.iterdir()] == [MARKER]


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    """Without our marker nothing is removed, and the error says what to do."""
    (tmp_path / "thesis.txt").write_text("three years")

    with pytest.raises(UsageError, match="--dir"), cleared(tmp_path):
        pass

    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    """A file is no folder of a demo."""
    place = tmp_path / "demo"
    place.write_text("a file")

    with pytest.raises(UsageError), cleared(place):
        pass

    assert place.read_text() == "a file"


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    """Whoever links a folder into a demo's keeps the folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").write_text("kept")
    with cleared(tmp_path / "demo") as folder:
        (folder.root / "link").symlink_to(tmp_path / "data")
    with cleared(tmp_path / "demo"):
        pass

    assert (tmp_path / "data" / "kept").read_text() == "kept"
    assert not (tmp_path / "demo" / "link").exists()


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is refused while the first runs, and what the first wrote stays."""
    with cleared(tmp_path / "demo") as folder:
        folder.results.write_text("of the first")
        with pytest.raises(AlreadyRunning), cleared(tmp_path / "demo"):
            pass

        assert folder.results.read_text() == "of the first"


@pytest.mark.parametrize("content", [None, b"", b" \n\n"])
async def test_what_cannot_be_submitted_is_refused_before_anything_is_removed(
    tmp_path: Path, content: bytes | None
) -> None:
    """A file that is missing or empty costs nobody the results of the last demo."""
    with cleared(tmp_path / "demo") as folder:
        folder.results.write_text("of the last one")
    file = tmp_path / "requests.jsonl"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"requests\.jsonl"):
        await run_demo(DemoOptions(tmp_path / "demo", file, DEFAULT_POLICY, as_json=True))

    assert folder.results.read_text() == "of the last one"
