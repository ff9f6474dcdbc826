"""Spoiled records beside good ones on the topics of a broker; `make fuzz` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.app import load_registries
from tests.fuzz.fuzz import on_kafka


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("kafka_jars")
async def test_every_bad_record_is_kept_and_every_good_one_done_on_kafka(tmp_path: Path) -> None:
    """500 records on each topic of a broker: no worker dies."""
    load_registries()
    outcome = await on_kafka(500 * 7, seed=3, folder=tmp_path)
    assert outcome.ok, outcome
    assert outcome.good > 100
