"""Both drivers of the topology decide in shadow alike."""

from __future__ import annotations

from agents.testing import policy_of
from schemas.control import PolicyPublished, PolicyShadowed
from schemas.topics import CONTROL_POLICY, SHADOW_DECISIONS
from tests.streams.scenes import Scene, Side
from tests.streams.test_parity import OTHER_YAML, YAML, Step, ask, publish, same

OTHER = policy_of(OTHER_YAML)


def tell(policy_hash: str) -> Step:
    """Return a step that orders a shadow; "" ends it."""
    return lambda side: side.put(CONTROL_POLICY, PolicyShadowed(policy_hash, "test", "", side.clock.now))


def written(side: Side) -> None:
    """Publish the other policy, not activating it."""
    side.put(CONTROL_POLICY, PolicyPublished(OTHER.hash, OTHER.normal_form, "test", side.clock.now))


async def test_a_shadow_that_comes_and_goes() -> None:
    """Both drivers decide beside by the same shadow, on what was asked while there was one."""
    steps: list[Step | int] = [publish, written, tell(OTHER.hash), 1000]
    scene = Scene(YAML, [*steps, ask(*range(12)), tell(""), 1000, ask(*range(12, 18))])
    fold, _ = await scene.on_fold()
    beside = sum(sum(rows.values()) for (topic, _), rows in fold.items() if topic == SHADOW_DECISIONS)

    assert beside == 12
    await same(scene)
