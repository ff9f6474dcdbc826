"""What the original made of invented configurations is what the loader makes of them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents.errors import ConfigError
from agents.loading.reading import SYNTAX, Verdict
from agents.policy import Policy
from streams.app import load_registries

CASES = Path(__file__).parent / "golden_policy" / "load_cases.jsonl.gz"
load_registries()


def cases() -> list[dict[str, Any]]:
    """Return every golden case."""
    with gzip.open(CASES, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def verdict_of(text: str) -> Verdict:
    """Return what the loader makes of *text*."""
    try:
        return Policy.read(text, "case").verdict
    except ConfigError:
        return Verdict("reject", "load", SYNTAX)


def place(blamed: str | None) -> str | None:
    """Return *blamed* as it is compared: three segments, no indices."""
    return None if blamed is None else ".".join(re.sub(r"\[[^\]]*\]", "", blamed).split(".")[:3])


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["id"]))
def test_the_loader_agrees_with_the_original(case: dict[str, Any]) -> None:
    """Accepted or refused, at load or at start, and for which field."""
    found, expected = verdict_of(case["yaml"]), case["expected"]

    assert (found.verdict, found.stage) == (expected["verdict"], expected["stage"])
    assert place(found.field) == place(expected.get("field"))


@pytest.mark.parametrize("name", ["decide_policies.jsonl.gz", "signals_policies.jsonl.gz"])
def test_every_golden_policy_loads(name: str) -> None:
    """The configurations that the original decided by are policies here, and read back as themselves."""
    with gzip.open(CASES.parent / name, "rt", encoding="utf-8") as lines:
        for line in lines:
            found = Policy.parse(json.loads(line)["yaml"], json.loads(line)["policy"])
            assert Policy.loads(found.normal_form).hash == found.hash


def test_what_is_accepted_is_a_policy_with_its_decisions() -> None:
    """An accepted file has as many decisions as the original counts, its strategy, and reads back."""
    for case in cases():
        if case["expected"]["verdict"] == "accept":
            found = Policy.parse(case["yaml"])
            again = Policy.loads(found.normal_form)

            assert len(found.routing.decisions) == case["expected"]["decisions"]
            assert found.routing.strategy == case["expected"]["strategy"]
            assert again.hash == found.hash
            assert again.routing.declared == found.routing.declared
