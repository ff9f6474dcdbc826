"""What is promised names the tests that back it, and every scenario that broke other systems has its test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
SCARS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 26)


def existing() -> frozenset[str]:
    """Return the name of every test."""
    files = (ROOT / "tests").rglob("*.py")
    return frozenset(name for path in files for name in TESTS.findall(path.read_text(encoding="utf-8")))


def promises() -> list[str]:
    """Return the sentences of docs/guarantees.md that promise something."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    promised = text.split("## Promised", 1)[1].split("\n## ", 1)[0]
    return [" ".join(part.split()) for part in promised.split("\n- ")[1:]]


def test_every_promise_names_a_test_that_exists() -> None:
    """A promise that nothing backs, or that a renamed test backed, is found here."""
    tests = existing()
    backing = {promise[:60]: re.findall(r"`(test_\w+)`", promise) for promise in promises()}
    assert len(backing) > 10
    assert {promise for promise, names in backing.items() if not names} == set()
    assert {name for names in backing.values() for name in names} - tests == set()


def test_every_scenario_that_broke_other_systems_has_a_test_by_name() -> None:
    """A scenario is tested under its number."""
    found = {int(number) for name in existing() for number in re.findall(r"scar_(\d\d)", name)}
    assert set(SCARS) - found == set()
