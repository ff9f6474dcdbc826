"""Commits that are read while a worker merges them."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.archive_commits import Commit, commits_in, put_commit
from replay.archive_files import Files


class Merging(Files):
    """A place whose worker merges what is there right after it was listed, if *merged* is given."""

    merged: Commit | None = None

    def names(self, folder: str = "") -> list[str]:
        """List, and merge before anything listed can be read."""
        found = super().names(folder)
        if self.merged is not None:
            put_commit(self, self.merged)
            for name in found:
                Path(self.path(name)).unlink()
            self.merged = None
        return found


def small(begin: int, end: int) -> Commit:
    """Return a commit of offsets that were all unreadable."""
    return Commit("requests", 0, begin, end, (), tuple(range(begin, end)))


def test_commits_that_are_merged_while_they_are_read_are_found_merged(tmp_path: Path) -> None:
    """What was listed and is gone is listed anew: nothing is missed, and nothing is an error."""
    files = Merging(str(tmp_path))
    for begin in (0, 5):
        put_commit(files, small(begin, begin + 5))
    files.merged = small(0, 10)

    assert [(c.begin, c.end) for c in commits_in(files)] == [(0, 10)]


class Dangling(Files):
    """A place that lists what it does not have."""

    def names(self, folder: str = "") -> list[str]:
        """List one name too many."""
        return [*super().names(folder), small(5, 9).name]


def test_a_commit_that_is_named_and_cannot_be_read_stays_an_error(tmp_path: Path) -> None:
    """However often it is listed: that is no worker at work."""
    files = Dangling(str(tmp_path))
    put_commit(files, small(0, 5))

    with pytest.raises(FileNotFoundError):
        commits_in(files)
