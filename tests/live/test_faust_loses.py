"""The kill harness sees losses: Faust's own consumer loses events under kills that ours survives."""

from pathlib import Path

import pytest

from tests.live.faust_consumer import losses

pytestmark = [pytest.mark.live, pytest.mark.timeout(900), pytest.mark.usefixtures("kafka_jars")]


async def test_fausts_own_consumer_loses_events_under_kills_and_ours_none(tmp_path: Path) -> None:
    """Same events, same kills: in a fresh group Faust commits past the first, unfinished event."""
    found = await losses(tmp_path, seed=1)
    assert found["ours"][0] == 0
    assert found["faust"][0] > 0
