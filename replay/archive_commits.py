"""What of an archive counts: commits, one small file each, and what they say was dropped or never there.

A commit covers the offsets of one partition from `begin` to before `end` and lists the files that hold
their rows. One that lies within a wider one is replaced by it; where two overlap, as of a writer that
outlived its turn, the later begins where the earlier one ends. So no row counts twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from agents.errors import InvalidRecord
from replay.archive_files import Files, is_under_way, revealed
from schemas.codec import SchemaEntry

MANIFEST = "manifest.json"
FORMAT = 2
_COMMITS = "_commits"
_POLICIES = "_policies"
Place = tuple[str, int]
"""A topic's logical name, and a partition."""


def date_of(name: str) -> str:
    """Return the day (UTC) of the records in the table's file *name*."""
    return name.partition("/date=")[2].partition("/")[0]


@dataclass(frozen=True, slots=True)
class Stored:
    """A table's file: its rows and their offsets; `origins`, of completions, where their requests are.

    `size` is how many bytes its rows take in memory; None in commits of earlier builds.
    """

    name: str
    table: str
    rows: int
    first: int
    last: int
    origins: tuple[int, int] | None = None
    size: int | None = None

    @property
    def folder(self) -> str:
        """Return table, date and tenant, as a path."""
        return self.name.rpartition("/")[0]

    @property
    def date(self) -> str:
        """Return the day (UTC) of its records."""
        return date_of(self.name)


@dataclass(frozen=True, slots=True)
class Gone:
    """What was erased of a table by age: files, rows that counted, and from which day to which (UTC)."""

    table: str
    files: int
    rows: int
    first: str
    last: str


def together(parts: Iterable[Gone]) -> tuple[Gone, ...]:
    """Return *parts* as one for each table."""
    found: dict[str, Gone] = {}
    for each in parts:
        known = found.get(each.table, replace(each, files=0, rows=0))
        found[each.table] = Gone(
            each.table,
            known.files + each.files,
            known.rows + each.rows,
            min(known.first, each.first),
            max(known.last, each.last),
        )
    return tuple(found[table] for table in sorted(found))


@dataclass(frozen=True, slots=True)
class Commit:
    """A stretch of a partition that is whole.

    `unreadable` are offsets of records that are none of ours; `lost` are stretches that the topic no
    longer held when they were to be archived; `dropped` is what was erased by age, one for each table.
    Rows before `skip` count elsewhere.
    """

    topic: str
    partition: int
    begin: int
    end: int
    files: tuple[Stored, ...]
    unreadable: tuple[int, ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    dropped: tuple[Gone, ...] = ()
    skip: int = 0

    @property
    def place(self) -> Place:
        """Return the topic and partition."""
        return self.topic, self.partition

    @property
    def rows(self) -> int:
        """Return how many rows its files have."""
        return sum(file.rows for file in self.files)

    @property
    def name(self) -> str:
        """Return the name of its file."""
        return f"{_folder(self.place)}/{self.begin:020}-{self.end:020}.json"


def _folder(place: Place) -> str:
    return f"{_COMMITS}/{place[0]}/{place[1]}"


_LISTINGS = 10
"""So often commits are listed before one that is named and absent is an error."""


def put_commit(files: Files, commit: Commit) -> None:
    """Write *commit*: from then on it counts."""
    document = {name: value for name, value in asdict(commit).items() if name != "skip"}
    files.put_json(commit.name, document)


def commits_in(files: Files, place: Place | None = None) -> list[Commit]:
    """Return the commits that count, by topic, partition and offset; of one *place*, if it is given."""
    folder = _COMMITS if place is None else _folder(place)
    for _ in range(_LISTINGS - 1):
        # A worker that merges beside us writes one commit before it takes the many away: it is listed then.
        with suppress(FileNotFoundError):
            return _listed(files, folder)
    return _listed(files, folder)


def _listed(files: Files, folder: str) -> list[Commit]:
    return counting(_read(files, name) for name in files.names(folder) if not is_under_way(name))


def _read(files: Files, name: str) -> Commit:
    row = json.loads(files.read_bytes(name))
    return Commit(
        row["topic"],
        row["partition"],
        row["begin"],
        row["end"],
        tuple(_stored(each) for each in row["files"]),
        tuple(row["unreadable"]),
        tuple((first, last) for first, last in row["lost"]),
        together(_gone(each) for each in row["dropped"]),
    )


def _stored(row: Mapping[str, Any]) -> Stored:
    origins = row["origins"]
    return Stored(**{**row, "origins": None if origins is None else tuple(origins)})


def _gone(row: Mapping[str, Any]) -> Gone:
    if "name" not in row:
        return Gone(**row)
    # Earlier builds listed each file.
    stored = _stored(row)
    return Gone(stored.table, 1, stored.rows, stored.date, stored.date)


def counting(commits: Iterable[Commit]) -> list[Commit]:
    """Return those of *commits* that no wider one replaces, each with the rows that it has to itself."""
    found: list[Commit] = []
    for each in sorted(commits, key=lambda c: (c.topic, c.partition, c.begin, -c.end)):
        reached = found[-1].end if found and found[-1].place == each.place else 0
        if each.end > reached:
            found.append(replace(each, skip=reached) if each.begin < reached else each)
    return found


def settle(files: Files, places: Iterable[Place], *, before: float | None = None) -> None:
    """Finish what a writer of *places* that died had begun, and remove what it left.

    Committed files get their names. Others are removed if written *before* that moment (seconds since
    the epoch), always if it is None: a writer that is only slow may yet commit them. Those whose rows are in
    a merged file are set aside.
    """
    listed = files.ages()
    wanted = {f"{topic}-{partition}": commits_in(files, (topic, partition)) for topic, partition in places}
    counted: dict[str, str] = {}
    for commits in wanted.values():
        for commit in commits:
            counted |= {file.name: commit.name for file in commit.files} | {commit.name: commit.name}
    for name, written in listed.items():
        if _stem(name) not in wanted or name in counted:
            continue
        whole = revealed(name)
        if whole in counted and whole not in listed:
            files.reveal(whole)
        elif _merged(name, wanted[_stem(name)]):
            files.set_aside(name)
        elif whole in counted or not _pending(name) or before is None or written < before:
            files.delete(name)


def _merged(name: str, commits: Iterable[Commit]) -> bool:
    """Tell whether the rows of the table's file *name* are in a wider one of *commits*: not erased by age."""
    if name != revealed(name) or not name.endswith(".parquet"):
        return False
    begin, end = (int(each) for each in name.removesuffix(".parquet").split("-")[-2:])
    table, day = name.partition("/")[0], date_of(name)
    wide = [commit for commit in commits if commit.begin <= begin and end <= commit.end]
    gone = (each for commit in wide for each in commit.dropped)
    return bool(wide) and not any(each.table == table and day <= each.last for each in gone)


def _pending(name: str) -> bool:
    """Tell whether *name* is of a file that its writer, if it lives, may yet commit."""
    return is_under_way(name) or name != revealed(name)


def _stem(name: str) -> str:
    """Return ``topic-partition`` of a file of an archive; empty for what is of no partition."""
    if name.startswith(f"{_COMMITS}/"):
        _, topic, partition, _ = name.split("/")
        return f"{topic}-{partition}"
    last = revealed(name).rpartition("/")[2]
    return last.rsplit("-", 2)[0] if last.endswith(".parquet") else ""


def file_name(commit: Place, folder: str, span: tuple[int, int]) -> str:
    """Return the name of the file in *folder* that has the rows of a place's offsets *span*."""
    topic, partition = commit
    return f"{folder}/{topic}-{partition}-{span[0]}-{span[1]}.parquet"


@dataclass(frozen=True, slots=True)
class Identity:
    """Of which log an archive is, and whether it holds bodies."""

    cluster_id: str
    prefix: str
    bodies: bool = False


class Manifest:
    """What an archive says of itself; it only ever grows."""

    def __init__(self, files: Files) -> None:
        """Read it; raises `InvalidRecord` if there is none, `OSError` if the place does not answer."""
        try:
            self._document = json.loads(files.read_bytes(MANIFEST))
        except (FileNotFoundError, ValueError):
            raise InvalidRecord(f"{files.root}: no archive, it has no readable {MANIFEST}") from None
        if self._document.get("format") != FORMAT:
            raise InvalidRecord(
                f"{files.root}: an archive of format {self._document.get('format')}, this reads {FORMAT}; "
                "make it again from the kept log"
            )
        self._files = files

    @staticmethod
    def make(files: Files, identity: Identity, schemas: Sequence[SchemaEntry]) -> Manifest:
        """Return that of the archive in *files*, begun here if it is new.

        Raises `InvalidRecord` if the archive is of another cluster, or was made with other columns.
        """
        own = {str(each.schema_id): _schema(each) for each in schemas}
        if not files.exists(MANIFEST):
            document = {"format": FORMAT, **asdict(identity), "schemas": own}
            files.put_json(MANIFEST, document)
            return Manifest(files)
        found = Manifest(files)
        if found.identity != identity:
            old = found.identity
            raise InvalidRecord(
                f"{files.root}: an archive of cluster {old.cluster_id!r}, prefix {old.prefix!r} with "
                f"bodies={old.bodies}, not of {identity.cluster_id!r}, {identity.prefix!r} with "
                f"bodies={identity.bodies}; give another place"
            )
        schemas_now = found.document["schemas"] | own
        if schemas_now != found.document["schemas"]:
            files.put_json(MANIFEST, found.document | {"schemas": schemas_now})
        return Manifest(files)

    @property
    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dict(self._document)

    @property
    def identity(self) -> Identity:
        """Return of what log it is."""
        return Identity(*(self._document[name] for name in ("cluster_id", "prefix", "bodies")))

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of each policy, by hash."""
        names = [name for name in self._files.names(_POLICIES) if not is_under_way(name)]
        return {
            name[len(_POLICIES) + 1 : -len(".json")]: self._files.read_bytes(name).decode() for name in names
        }


def put_policy(files: Files, name: str, text: str) -> None:
    """Keep the normal form *text* of the policy whose hash is *name*."""
    path = f"{_POLICIES}/{name}.json"
    if not files.exists(path):
        files.put_bytes(path, text.encode())


def _schema(entry: SchemaEntry) -> dict[str, str]:
    return {"record": entry.record, "fingerprint": entry.fingerprint, "schema": entry.text}
