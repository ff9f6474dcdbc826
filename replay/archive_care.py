"""Care for an archive's files: small ones are merged, those of a class that is too old are dropped.

Both replace commits: a kill at any moment leaves the old commit or the new one, and never a row twice.
Of one place at a time there must be one writer, this one included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agents.errors import ConfigError
from replay.archive_commits import (
    Commit,
    Gone,
    Place,
    Stored,
    commits_in,
    date_of,
    file_name,
    put_commit,
    together,
)
from replay.archive_encoding import encoding
from replay.archive_files import GROUP, Files, TableFile, aside, hidden, is_aside
from replay.archive_rows import KINDS, POLICIES
from schemas.topics import BY_NAME, signals_topic

TARGET = 262_144
"""Weight of a commit beyond which it is merged with no other: its rows, or more where they are large."""
ROW_BYTES = 1024
"""Of rows in memory weigh as much as one row: what is merged has at most 256 MiB."""
FAN = 8
"""Neighbours of about one size that are merged into one, so that a row is written a few times only."""
_SMALLEST = 256
_GROWTH = 4
_GROUP_BYTES = 64 * 1024 * 1024
"""Of a row group, about, of what is merged: rows may hold a body of 1 MiB each."""


def compact(files: Files, place: Place, *, fan: int = FAN, target: int = TARGET) -> int:
    """Merge small commits of *place* with their neighbours, *fan* at least; return how many it merged.

    What it merges weighs at most *target* each, so that neither this nor who reads it needs memory for more;
    rows that count elsewhere are left out for good. The files that were merged are set aside until `sweep`.
    """
    merged = 0
    sizes: dict[str, int] = {}
    while run := due(files, place, fan=fan, target=target, sizes=sizes):
        _merge(files, run)
        merged += len(run)
    return merged


def due(
    files: Files, place: Place, *, fan: int = FAN, target: int = TARGET, sizes: dict[str, int] | None = None
) -> Sequence[Commit]:
    """Return the neighbours of *place* that `compact` would merge next; none if it has nothing to do.

    *sizes* keeps what files were measured that do not say.
    """
    measured = {} if sizes is None else sizes

    def weight(commit: Commit) -> int:
        if commit.rows >= target:  # as heavy as need be known
            return commit.rows
        return max(commit.rows, sum(_size(files, each, measured) for each in commit.files) // ROW_BYTES)

    run = _run(commits_in(files, place), weight, fan, target)
    return run if len(run) > 1 else ()


def _size(files: Files, stored: Stored, measured: dict[str, int]) -> int:
    """Return how many bytes the rows of *stored* take in memory, *measured* if its commit does not say."""
    if stored.size is not None:
        return stored.size
    if stored.name not in measured:
        told = files.parquet(stored.name, []).metadata
        measured[stored.name] = sum(told.row_group(n).total_byte_size for n in range(told.num_row_groups))
    return measured[stored.name]


def _run(
    commits: Sequence[Commit], weight: Callable[[Commit], int], fan: int, target: int
) -> Sequence[Commit]:
    """Return the first neighbours, of the smallest weight that has any, that are to be merged."""
    weighed = [(commit, weight(commit)) for commit in commits]
    for tier in range(_tier(target) + 1):
        run: list[tuple[Commit, int]] = []
        for each in (*weighed, None):
            fits = each is not None and _tier(each[1]) <= tier and each[1] < target
            if each is not None and fits and _joins(run, each, target):
                run.append(each)
                continue
            if len(run) >= fan and _pays(run, fan):
                return [commit for commit, _ in run]
            run = [each] if each is not None and fits else []
    return ()


def _joins(run: Sequence[tuple[Commit, int]], each: tuple[Commit, int], target: int) -> bool:
    """Tell whether *each* is the neighbour of *run*, and they are within *target*."""
    return not run or (each[0].begin <= run[-1][0].end and sum(own for _, own in run) + each[1] <= target)


def _pays(run: Sequence[tuple[Commit, int]], fan: int) -> bool:
    """Tell whether even the heaviest of *run* grows by much (to the double, with a fan of 8) if merged.

    Else a heavy one would be written again for every few light ones that come after it.
    """
    weights = [own for _, own in run]
    return _GROWTH * sum(weights) >= fan * max(weights)


def _tier(weight: int) -> int:
    tier = 0
    while weight > _SMALLEST:
        weight //= _GROWTH
        tier += 1
    return tier


def _merge(files: Files, run: Sequence[Commit]) -> None:
    place, begin, end = run[0].place, run[0].begin, run[-1].end
    folders: dict[str, list[tuple[Commit, Stored]]] = {}
    for commit in run:
        for stored in commit.files:
            folders.setdefault(stored.folder, []).append((commit, stored))
    merged = []
    for folder, parts in sorted(folders.items()):
        name = file_name(place, folder, (begin, end))
        found = _written(files, name, parts)
        if found is not None:
            merged.append(found)
    wide = Commit(
        *place,
        begin,
        end,
        tuple(merged),
        tuple(o for c in run for o in c.unreadable if o >= c.skip),
        tuple(stretch for c in run for stretch in c.lost),
        together(gone for c in run for gone in c.dropped),
    )
    put_commit(files, wide)
    for commit in run:
        for stored in commit.files:
            files.set_aside(stored.name)
        files.delete(commit.name)
    for stored in merged:
        files.reveal(stored.name)


def _written(files: Files, name: str, parts: Sequence[tuple[Commit, Stored]]) -> Stored | None:
    """Write the rows of *parts*, which are of one folder, for *name*; None where none of them counts."""
    opened = [(commit, files.parquet(stored.name, [])) for commit, stored in parts]
    schema = pa.unify_schemas([file.schema_arrow for _, file in opened])
    out = pa.BufferOutputStream()
    rows, size, spans = 0, 0, []
    with pq.ParquetWriter(out, schema, **encoding(schema)) as writer:
        for table in _groups(opened, schema):
            writer.write_table(table, row_group_size=GROUP)
            rows, size = rows + len(table), size + table.nbytes
            spans.append(table["offset"].to_numpy())
    if not rows:
        return None
    files.put_hidden(name, memoryview(out.getvalue()))
    origins = [stored.origins for _, stored in parts if stored.origins is not None]
    span = (min(low for low, _ in origins), max(high for _, high in origins)) if origins else None
    return Stored(name, parts[0][1].table, rows, int(spans[0][0]), int(spans[-1][-1]), span, size)


def _groups(opened: Iterable[tuple[Commit, TableFile]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows that count, a row group's worth at a time."""
    held: list[pa.Table] = []
    count, size = 0, 0
    for commit, file in opened:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            if commit.skip:
                table = table.filter(pc.greater_equal(table["offset"], commit.skip))
            held.append(pa.concat_tables([schema.empty_table(), table], promote_options="default"))
            count, size = count + len(table), size + table.nbytes
            if count >= GROUP or size >= _GROUP_BYTES:
                yield pa.concat_tables(held)
                held, count, size = [], 0, 0
    if count:
        yield pa.concat_tables(held)


def sweep(files: Files, before: float) -> int:
    """Remove what was merged and set aside *before* (s since the epoch); return how many files that were."""
    old = [name for name, written in files.ages().items() if is_aside(name) and written < before]
    for name in old:
        with suppress(FileNotFoundError):  # another member was faster
            files.delete(name)
    return len(old)


def _remove(files: Files, name: str) -> None:
    for each in (name, hidden(name), aside(name)):
        if files.exists(each):
            files.delete(each)


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days each table is kept; tables that are not named are kept for ever."""

    days: Mapping[str, int]

    @staticmethod
    def of(document: Any, where: str) -> Retention:  # noqa: ANN401 - what a YAML file holds
        """Return what *document* says: days by class (`body`, `decision`) or by table, which wins.

        Raises `ConfigError`, which names what is wrong in *where*.
        """
        classes = {table: _class(table) for table in KINDS if table != POLICIES}
        known = sorted({*classes, *classes.values()})
        if not isinstance(document, dict) or not document:
            raise ConfigError(
                f"{where}: give days by class or table, such as `body: 30`; known: {', '.join(known)}"
            )
        for name, days in document.items():
            if name not in known:
                raise ConfigError(f"{where}: {name!r} is no class or table; known: {', '.join(known)}")
            if not isinstance(days, int) or isinstance(days, bool) or days < 1:
                raise ConfigError(f"{where}: {name}: {days!r} is no number of days, which is 1 or more")
        kept = {table: document.get(table, document.get(kind)) for table, kind in classes.items()}
        return Retention({table: days for table, days in kept.items() if days is not None})

    def first_days(self, today: datetime) -> Mapping[str, str]:
        """Return the first day (UTC) of each table that is still kept *today*."""
        return {t: (today - timedelta(days=days)).strftime("%Y-%m-%d") for t, days in self.days.items()}


MERGED_S = 3600.0
"""What was merged stays for so long by default."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long an archive keeps what: rows by *retention*, and for how many seconds files that were merged.

    Whoever began to read before they were merged needs them until it is done.
    """

    retention: Retention | None = None
    merged_s: float = MERGED_S


KEEPING = Keeping()


def _class(table: str) -> str:
    return BY_NAME[signals_topic("<role>") if table == "signals" else table].retention


def retain(
    files: Files, retention: Retention, now: float, places: Iterable[Place | None] = (None,)
) -> list[Gone]:
    """Erase the files whose day is older than *retention* keeps them, *now* (s); return what each was.

    They count in their commits from then on, so that readers know what is not there. What was merged of such
    a day and set aside for readers goes too, at once.
    """
    first = retention.first_days(datetime.fromtimestamp(now, UTC))
    erased: list[Gone] = []
    for commit in chain.from_iterable(commits_in(files, place) for place in places):
        old = tuple(f for f in commit.files if f.date < first.get(f.table, ""))
        if not old:
            continue
        left = tuple(f for f in commit.files if f not in old)
        gone = [Gone(f.table, 1, _counted(files, commit, f), f.date, f.date) for f in old]
        put_commit(files, replace(commit, files=left, dropped=together([*commit.dropped, *gone])))
        for stored in old:
            _remove(files, stored.name)
        erased += gone
    for table, day in first.items():
        for name in files.names(table):
            if is_aside(name) and date_of(name) < day:
                with suppress(FileNotFoundError):  # another member was faster
                    files.delete(name)
    return erased


def _counted(files: Files, commit: Commit, stored: Stored) -> int:
    """Return how many rows of *stored* count in *commit*: where a writer outlived its turn, not all do."""
    if stored.first >= commit.skip:
        return stored.rows
    offsets = files.parquet(stored.name, []).read(columns=["offset"])["offset"]
    return len(offsets.filter(pc.greater_equal(offsets, commit.skip)))


def summed(gone: Iterable[Gone]) -> dict[str, dict[str, Any]]:
    """Return what is *gone*, by table: files, rows, first and last day."""
    return {
        each.table: {"files": each.files, "rows": each.rows, "from": each.first, "to": each.last}
        for each in together(gone)
    }
