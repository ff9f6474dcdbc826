"""One round of kills over every role, as small as CI needs it; `make kill` is the long form."""

from pathlib import Path

import pytest

from tests.live.checker import judge, read, report
from tests.live.kill import run

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kafka_jars", "triton_environment"),
]


async def test_no_kill_of_any_role_loses_or_doubles_a_request(tmp_path: Path) -> None:
    """Each role is killed at least once with fifty requests in flight; every one is answered once."""
    await run(tmp_path, rounds=1, seed=7)
    verdict = judge(read(tmp_path))
    assert verdict.ok, report(verdict)
    assert len(verdict.kills) == 7, "a role was spared"
    assert verdict.totals["least_in_flight"] >= 50
    assert verdict.totals["accepted"] > 0
