"""The life of policies as `control.policy` tells it: what is active, what was before, what runs in shadow.

A fold over records: whoever reads the same records knows the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.policy import Policy, PolicyBook
from schemas.control import PolicyActivated, PolicyShadowed

ACTIVATED, ROLLED_BACK = "activated", "rolled_back"
_REMEMBERED = 1000


class PolicyLife:
    """What is active and in shadow after the records so far; the last 1,000 activations can be undone."""

    def __init__(self) -> None:
        self._stack: list[PolicyActivated] = []
        self._shadow: PolicyShadowed | None = None

    def take(self, record: object) -> None:
        """Take in the next record; what is no `PolicyActivated` or `PolicyShadowed` changes nothing.

        A rollback counts only if what it replaces is active and it returns to what was active before:
        of two operators who undo the same activation at once, the second one undoes nothing more.
        """
        if isinstance(record, PolicyShadowed):
            self._shadow = record if record.policy_hash else None
        elif isinstance(record, PolicyActivated):
            if record.how == ROLLED_BACK:
                self._roll_back(record)
            elif record.policy_hash != self.active:
                self._stack.append(record)
                del self._stack[:-_REMEMBERED]

    @property
    def active(self) -> str | None:
        """The hash that requests are stamped with."""
        return self._stack[-1].policy_hash if self._stack else None

    @property
    def standing(self) -> PolicyActivated | None:
        """The record that made the active policy active."""
        return self._stack[-1] if self._stack else None

    @property
    def before(self) -> str | None:
        """The hash that a rollback returns to."""
        return self._stack[-2].policy_hash if len(self._stack) > 1 else None

    @property
    def history(self) -> Sequence[PolicyActivated]:
        """What rollbacks would walk through, the active one last."""
        return tuple(self._stack)

    @property
    def shadow(self) -> PolicyShadowed | None:
        """The record that put a policy into shadow, None while there is none."""
        return self._shadow

    def shadow_in(self, book: PolicyBook) -> Policy | None:
        """Return the shadow policy, None while there is none or *book* has not got it."""
        found = self._shadow
        return book[found.policy_hash] if found is not None and found.policy_hash in book else None

    def _roll_back(self, record: PolicyActivated) -> None:
        if record.replaces == self.active and record.policy_hash == self.before:
            self._stack[-2:] = [record]
