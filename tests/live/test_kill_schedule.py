"""Which cells a kill run aims at, round by round."""

from __future__ import annotations

import random

import pytest

from tests.live.kill_schedule import PHASES, WANTED, Schedule

ROLES = ("admission", "decision", "dispatch", "provider.north", "retry", "signals.embedding")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("roles", [ROLES, ROLES[:2], ROLES[:1]])
def test_a_run_hits_every_cell_and_lets_roles_rest(roles: tuple[str, ...], seed: int) -> None:
    """Six of ten aims hit: no cell is missing in the end, and others come between two aims at a role."""
    schedule, chance = Schedule(roles, 200, seed), random.Random(seed)
    aimed = []
    while (this := schedule.next()) is not None:
        aimed.append((this.role, this.phase))
        schedule.hit(this.role, this.phase if chance.random() < 0.6 else "starting")

    assert schedule.missing == []
    assert min(schedule.hits[role, phase] for role in roles for phase in PHASES) >= WANTED
    rest = min(2, len(roles) - 1)
    for number, (role, phase) in enumerate(aimed):
        before = [other for other, _ in aimed[max(0, number - rest) : number]]
        assert phase == "being_assigned" or role not in before


def test_a_cell_that_cannot_be_hit_ends_the_run_all_the_same() -> None:
    """It is aimed at for twice the rounds, no more often than every third, and named as missing."""
    schedule = Schedule(ROLES, 200, 1)
    aimed = []
    while (this := schedule.next()) is not None:
        aimed.append((this.role, this.phase))
        if aimed[-1] != ("retry", "idle"):
            schedule.hit(*aimed[-1])

    assert len(aimed) == 400
    assert schedule.missing == [("retry", "idle")]
    assert aimed[-100:].count(("retry", "idle")) > 20
