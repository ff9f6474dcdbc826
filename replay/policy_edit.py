"""A policy file with other thresholds: the same text but for the numbers, comments and layout untouched.

ruamel.yaml says where each value stands in the text; nothing is written anew by a YAML library.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from agents.errors import ConfigError
from agents.policy import Policy
from replay.sweeping.axes import signals_named

FIELD = "threshold"
_SCALAR = re.compile(r"[^\s,}\]#&*!|>'\"%@`][^\s,}\]#]*")


def with_thresholds(text: str, policy: Policy, thresholds: Mapping[tuple[str, str], float]) -> str:
    """Return *text*, the file of *policy*, with the threshold of each signal (type, name) replaced.

    Raises `ConfigError` where a threshold is not written as a plain number, or the result would not be the
    policy with these thresholds and nothing else changed.
    """
    lines = text.splitlines(keepends=True)
    edits: list[tuple[int, int, int, str]] = []
    document = _loaded(text)
    for (kind, name), value in thresholds.items():
        collections = {config.collection for config in signals_named(policy, kind, name)}
        entries = [entry for key in collections for entry in _entries(document, key, name)]
        if not entries:
            raise ConfigError(
                f"{kind}:{name} is not written out in the file; set its {FIELD} to {value!r} there"
            )
        edits += [_edit(lines, entry, f"{kind}:{name}", value) for entry in entries]
    # From the end, so that earlier places stay where they are.
    for row, start, stop, new in sorted(set(edits), reverse=True):
        lines[row] = lines[row][:start] + new + lines[row][stop:]
    changed = "".join(lines)
    _check(changed, policy, thresholds)
    return changed


def _loaded(text: str) -> Any:  # noqa: ANN401 - whatever YAML holds
    try:
        return YAML(typ="rt").load(text)
    except YAMLError as error:
        raise ConfigError(f"the file cannot be edited: {type(error).__name__}") from None


def _entries(node: Any, collection: str, name: str) -> Iterator[CommentedMap]:  # noqa: ANN401 - as above
    """Iterate over the entries called *name* of every list under the key *collection*."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == collection and isinstance(value, Sequence) and not isinstance(value, str):
                yield from (e for e in value if isinstance(e, CommentedMap) and e.get("name") == name)
            else:
                yield from _entries(value, collection, name)
    elif isinstance(node, list):
        for value in node:
            yield from _entries(value, collection, name)


def _edit(lines: Sequence[str], entry: CommentedMap, leaf: str, value: float) -> tuple[int, int, int, str]:
    """Return row, start and stop of what is replaced, and by what."""
    if FIELD not in entry:
        row, column = entry.lc.key("name")
        if entry.fa.flow_style():
            return row, column, column, f"{FIELD}: {value!r}, "
        end = len(lines[row].rstrip("\r\n"))
        return row, end, end, f"\n{' ' * column}{FIELD}: {value!r}"
    row, column = entry.lc.value(FIELD)
    found = _SCALAR.match(lines[row], column)
    written = "" if found is None else found.group()
    try:
        float(written)
    except ValueError:
        raise ConfigError(
            f"line {row + 1}: {FIELD} of {leaf} is not written as a plain number; set it to {value!r} there"
        ) from None
    return row, column, column + len(written), repr(value)


def _check(changed: str, policy: Policy, thresholds: Mapping[tuple[str, str], float]) -> None:
    """Raise unless *changed* is *policy* with *thresholds* and nothing else."""
    new = Policy.parse(changed, "the proposed policy")
    for (kind, name), value in thresholds.items():
        found = {getattr(config, FIELD) for config in signals_named(new, kind, name)}
        if found != {value}:
            raise ConfigError(f"{kind}:{name} could not be set to {value!r} in the file; set it by hand")
    if _without(new, thresholds) != _without(policy, thresholds):
        raise ConfigError("the edited file would differ in more than its thresholds; set them by hand")


def _without(policy: Policy, thresholds: Mapping[tuple[str, str], float]) -> Any:  # noqa: ANN401 - plain values
    """Return *policy* as plain values without the thresholds that are changed."""
    dumped = policy.model_dump(mode="json", by_alias=True)
    scopes = (dumped["routing"], *(recipe["routing"] for recipe in dumped["recipes"]))
    swept = {(c.collection, c.name) for key in thresholds for c in signals_named(policy, *key)}
    for collection, entries in (item for routing in scopes for item in routing["signals"].items()):
        for entry in entries:
            if (collection, entry.get("name")) in swept:
                entry.pop(FIELD, None)
    return dumped


def diff_of(old: str, new: str, name: str) -> str:
    """Return the unified diff from *old* to *new*, of the file *name*, as `patch -p1` takes it."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
