"""What is to be said of a file that has been read: errors, oddities with their remedies, ignored keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents.complaints import Oddity, Path
from agents.loading.oddities import of_policy
from agents.loading.substitution import substitute

if TYPE_CHECKING:
    from agents.loading.reading import Reading
    from agents.loading.tree import Note
    from agents.policy import Policy

_BOOLEANS = frozenset({"true", "false"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a file.

    `severity` is error (it cannot be used), warning (it does what its writer can hardly mean, or
    nothing) or info. `remedy` says what ends it; `fix` is the change that `policy modernize` makes,
    path -> value, None where the key is to go.
    """

    severity: str
    code: str
    path: Path
    message: str
    remedy: str = ""
    fix: tuple[tuple[Path, object], ...] = ()


def findings(reading: Reading[Policy], environment: Mapping[str, str]) -> list[Finding]:
    """Return what is to be said of *reading*, by place in the file."""
    found = [*_complaints(reading), *_ignored(reading), *_notes(reading, environment), *_scalars(reading)]
    if reading.policy is not None:
        found += [_odd(oddity) for oddity in of_policy(reading.policy)]
    return sorted(found, key=lambda each: (reading.tree.place(each.path), each.code, each.message))


def _odd(oddity: Oddity) -> Finding:
    return Finding("warning", oddity.code, oddity.path, oddity.message, oddity.remedy, oddity.fix)


def _complaints(reading: Reading[Policy]) -> Iterator[Finding]:
    for each in reading.complaints:
        if each.portable:
            message = f"{each.message}; the original refuses this, Signalbox does not"
            yield Finding("info", "not-portable", each.path, message)
        else:
            code = "refused" if each.stage == "load" else "refused-at-start"
            yield Finding("error", code, each.path, each.message)


def _ignored(reading: Reading[Policy]) -> Iterator[Finding]:
    for each in reading.decoded.ignored:
        key = each.path[-1]
        if each.setting:
            yield Finding("info", "setting", each.path, f"{key} is a setting, no part of the policy")
        else:
            hint = f"; did you mean {each.suggestion}?" if each.suggestion else ""
            yield Finding("warning", "unknown-key", each.path, f"{key} is not known and ignored{hint}")
    for path, name in reading.decoded.aliases:
        message = f"{path[-1]} is another name of {name}"
        yield Finding("info", "alias", path, message)


def _notes(reading: Reading[Policy], environment: Mapping[str, str]) -> Iterator[Finding]:
    explicit = "substitution" in (reading.tree.value if isinstance(reading.tree.value, dict) else ())
    for note in reading.tree.notes:
        if note.kind in {"substituted", "unset"}:
            yield from _substituted(note, environment, explicit=explicit)
        elif note.kind == "duplicate":
            yield _repeated(note, _at(reading.tree.value, note.path))
        else:
            yield _told(note)


def _told(note: Note) -> Finding:
    key = note.path[-1] if note.path else ""
    if note.kind == "document":
        return Finding(
            "warning", "second-document", note.path, "only the first document is read", "remove it"
        )
    message = f"the key {key} is no text in YAML 1.1 and is dropped"
    return Finding("warning", "dropped-key", note.path, message, f"write '{key}'")


def _repeated(note: Note, value: object) -> Finding:
    message = f"{note.path[-1]} stands here again (first in line {note.text}); the last one counts"
    kept = value.replace("$", "$$") if isinstance(value, str) else value
    fix = ((note.path, kept),) if kept is not None else ()
    return Finding("warning", "duplicate-key", note.path, message, "keep one of them", fix)


def _substituted(note: Note, environment: Mapping[str, str], *, explicit: bool) -> Iterator[Finding]:
    remedy = "substitution: explicit"
    if note.kind == "unset":
        message = f"the environment has no variable {note.text}: it is replaced by nothing"
        yield Finding("warning", "unset-variable", note.path, message, remedy, _EXPLICIT)
    elif not explicit and _narrow(note.text, environment) != substitute(note.text, environment).text:
        message = "a $ in this text is taken for a reference to the environment"
        yield Finding("warning", "substitution", note.path, message, remedy, _EXPLICIT)


_EXPLICIT: tuple[tuple[Path, object], ...] = ((("substitution",), "explicit"),)


def _narrow(text: str, environment: Mapping[str, str]) -> str:
    return substitute(text, environment, explicit=True).text


def _scalars(reading: Reading[Policy]) -> Iterator[Finding]:
    """Iterate over scalars that are not read as they are written."""
    tree = reading.tree
    texts = {*reading.decoded.texts, *reading.decoded.times}
    names = {path: spelling for path, spelling in tree.rewritten.items() if path in texts}
    for path, (text, reads) in names.items():
        code = "yaml11-boolean" if reads in _BOOLEANS else "rewritten-scalar"
        kept = text if _sole_spelling(reading, names.values(), reads) else reads
        message = f"{text} is read as {reads!r} in YAML 1.1"
        yield Finding("warning", code, path, message, f"write '{kept}'", ((path, kept),))
    for path in reading.decoded.cut:
        message = "a whole number is wanted: the fraction is cut off"
        number = int(_at(tree.value, path))
        yield Finding("warning", "cut-number", path, message, f"write {number}", ((path, number),))


def _sole_spelling(reading: Reading[Policy], spellings: Iterable[tuple[str, str]], reads: str) -> bool:
    """Tell whether what is read as *reads* is spelled in one way throughout, so that names may be kept."""
    if reads in reading.decoded.written_texts:
        return False
    return len({text for text, read in spellings if read == reads}) == 1


def _at(value: object, path: Path) -> Any:  # noqa: ANN401 - plain values
    """Return what stands at *path*, which was taken from this very value."""
    for key in path:
        value = value[key]  # type: ignore[index] # a list or a mapping, as it was read
    return value
