"""The folder and the fake in memory are claim stores; what only a disk does: be full, be away."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from agents.errors import ConfigError, StoreFull, Unavailable
from streams.clients.claims import ClaimStore, FileClaims, MemoryClaims, store_at
from tests.suites.claim_suite import ClaimSuite, listed, reference


def files(folder: Path) -> list[Path]:
    """Return the files below *folder*."""
    return [path for path in folder.rglob("*") if path.is_file()]


class TestMemoryClaims(ClaimSuite):
    """The fake passes what the real ones pass."""

    @pytest.fixture
    def store(self) -> ClaimStore:
        """An empty one."""
        return MemoryClaims(lambda: 0)


class TestFileClaims(ClaimSuite):
    """A folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ClaimStore:
        """An empty one."""
        return FileClaims(tmp_path)

    async def test_a_full_disk_refuses_before_it_is_full(self, tmp_path: Path) -> None:
        """What would leave less than the reserve is refused, and nothing of it is kept."""
        store = FileClaims(tmp_path, reserve=1000, free=lambda _: 1500)
        await store.put(reference(), b"x" * 500)
        with pytest.raises(StoreFull, match=r"is full .*claims gc"):
            await store.put(reference(), b"x" * 501)

        assert [found.size for found in await listed(store)] == [500]

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    async def test_a_disk_that_runs_full_leaves_nothing_half_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """The disk says that it is full only when it is synced: the piece is removed again."""
        store = FileClaims(tmp_path)

        def full(_handle: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFull):
            await store.put(reference(), b"x" * 100)

        assert files(tmp_path) == []

    async def test_a_folder_that_is_not_mounted_is_away_and_loses_nothing(self, tmp_path: Path) -> None:
        """A missing root is an outage, which passes, and not a missing body, which does not."""
        with pytest.raises(Unavailable, match="is it mounted"):
            await FileClaims(tmp_path / "unmounted").get(reference(), 10)

    async def test_a_folder_that_may_not_be_written_is_away(self, tmp_path: Path) -> None:
        """The error names the store and what the system said."""
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(Unavailable, match=r"the claim store .*file failed: "):
            await FileClaims(tmp_path / "file").put(reference(), b"x")

    async def test_pieces_of_killed_writers_are_no_claims_and_go_in_time(self, tmp_path: Path) -> None:
        """A piece is never listed; one that is an hour old is removed by the next listing."""
        store = FileClaims(tmp_path)
        await store.put(reference(), b"whole")
        (path,) = files(tmp_path)
        fresh, old = path.with_name(path.name + "1.part"), path.with_name(path.name + "2.part")
        fresh.write_bytes(b"h")
        old.write_bytes(b"h")
        os.utime(old, (path.stat().st_mtime - 7200, path.stat().st_mtime - 7200))
        found = await listed(store)

        assert [one.size for one in found] == [5]
        assert (fresh.exists(), old.exists()) == (True, False)

    async def test_files_are_for_their_owner(self, tmp_path: Path) -> None:
        """Bodies are prompts: neither group nor others may read them; a folder need not exist before."""
        store = FileClaims(tmp_path / "not" / "claims")
        await store.put(reference(), b"x")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "not" / "claims").rglob("*")}

        assert {mode & 0o077 for mode in modes} == {0}


@pytest.mark.parametrize(
    "place", ["ftp://x/y", "file://host", "s3://key:word@bucket/x", "s3:///x", "s3://b?a=1"]
)
def test_a_store_that_is_no_store_is_refused(place: str) -> None:
    """The message says what a store looks like, or that credentials do not belong into its address."""
    with pytest.raises(ConfigError, match="claim store"):
        store_at(place)


@pytest.mark.parametrize("place", ["some/folder", "/some/folder", "file:///some/folder"])
def test_a_folder_is_a_store(place: str) -> None:
    """A path and a file URL both name a folder."""
    assert isinstance(store_at(place), FileClaims)
