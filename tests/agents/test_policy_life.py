"""What is active follows from the records alone, rollbacks included."""

from hypothesis import given
from hypothesis import strategies as st

from agents.policy_life import ACTIVATED, ROLLED_BACK, PolicyLife
from schemas.control import PolicyActivated, PolicyShadowed


def activated(name: str, how: str = ACTIVATED, replaces: str = "") -> PolicyActivated:
    """Return a record that makes *name* active."""
    return PolicyActivated(name, "ada", "", 0, how, replaces)


def after(*records: object) -> PolicyLife:
    """Return what is known after *records*."""
    life = PolicyLife()
    for record in records:
        life.take(record)
    return life


def test_two_rollbacks_of_the_same_activation_undo_it_once() -> None:
    """Both operators saw b active; the second record finds a active and counts for nothing."""
    undo = activated("a", ROLLED_BACK, "b")
    life = after(activated("0"), activated("a"), activated("b"), undo, undo)

    assert (life.active, life.before, life.standing) == ("a", "0", undo)


def test_the_same_policy_activated_again_is_no_step_of_its_own() -> None:
    """Rolling back returns to another policy, not to an earlier activation of the same one."""
    life = after(activated("a"), activated("b"), activated("b"))

    assert (life.active, life.before) == ("b", "a")


def test_an_empty_hash_ends_the_shadow() -> None:
    """The last order counts; what is active has nothing to do with it."""
    on, off = PolicyShadowed("s", "ada", "", 0), PolicyShadowed("", "ada", "", 1)

    assert after(on).shadow == on
    assert after(on, off).shadow is None
    assert after(on, off).active is None


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=40))
def test_rollbacks_walk_back_through_what_was_activated(orders: list[str | None]) -> None:
    """Against a plain stack: None is a rollback as a careful operator writes it."""
    life, stack = PolicyLife(), list[str]()
    for order in orders:
        if order is not None:
            life.take(activated(order))
            stack += [order] if stack[-1:] != [order] else []
        elif life.before is not None:
            life.take(activated(life.before, ROLLED_BACK, life.active or ""))
            stack.pop()
    assert [record.policy_hash for record in life.history] == stack
