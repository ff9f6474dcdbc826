"""Spoiled records beside good ones, through every role: what `make fuzz` does with a million, in small."""

from __future__ import annotations

import pytest

from streams.app import load_registries
from tests.fuzz.fuzz import in_memory


@pytest.fixture(autouse=True)
def registries() -> None:
    """Have every signal and provider."""
    load_registries()


@pytest.mark.timeout(600)
async def test_every_bad_record_is_kept_and_every_good_one_done_in_memory() -> None:
    """20,000 records on the topics that roles read: no worker dies."""
    outcome = await in_memory(20_000, seed=2)
    assert outcome.ok, outcome
    assert outcome.good > 1000
    assert outcome.bad.total() > 10_000
