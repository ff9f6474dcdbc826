"""Signals: one file per observation that the router can make about a request.

A signal is a frozen configuration that is also its behaviour. Two shapes only: a `Heuristic`
looks at the content alone; a `Classified` one says which texts a classifier should see and
reads the vectors that come back. Which role computes it is an attribute of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from agents.complaints import Complaint, Oddity
from agents.content import Content
from agents.registry import PluginConfig, Registry
from agents.rules import Node
from schemas.signal import Observation

NAN = float("nan")

Observe = Callable[[Content], Sequence[Observation]]


class SignalConfig(PluginConfig):
    """Configuration of a signal; `collection` is its key under ``routing.signals``.

    Fields are as lenient as the original: a value is refused by `complaints` alone, which say at which
    stage; what is accepted but hardly meant is one of the `oddities`.
    """

    collection: ClassVar[str]
    role: ClassVar[str]
    written_as: ClassVar[Mapping[str, str]] = {}
    """Field -> the key that files have for it, where the field cannot have that name."""
    name: str = ""

    def names(self) -> tuple[str, ...]:
        """Return the names by which a leaf may refer to this signal and match."""
        return (self.name,)

    @property
    def observed_name(self) -> str:
        """Return the name that observations of this signal have."""
        return self.name

    def conditions(self) -> Iterator[Node]:
        """Iterate over the leaves that this signal is gated by."""
        return iter(())

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over why this signal is refused, looked at alone."""
        return iter(())

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over what this signal does that can hardly be meant."""
        return iter(())

    def observed(
        self, *, matched: bool, label: str = "", confidence: float = NAN, value: float = NAN
    ) -> Observation:
        """Return an observation of this signal with status ok."""
        kind = type(self).model_fields["type"].default
        return Observation(kind, self.observed_name, label, matched, confidence, value, "ok", "")

    def unobserved(self, status: str, reason: str) -> Observation:
        """Return an observation that says why there is none; *status* is failed or skipped."""
        kind = type(self).model_fields["type"].default
        return Observation(
            kind,
            self.observed_name,
            "",
            matched=False,
            confidence=NAN,
            value=NAN,
            status=status,
            reason=reason,
        )


class Heuristic(SignalConfig):
    """A signal computed from the content alone."""

    role: ClassVar[str] = "heuristics"

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Observe:
        """Return what observes all *configs* of this class at once, in their order.

        Compiled once a policy. A signal with labelled numbers gives a row for each, before its own.
        """
        return lambda content: [config.evaluate(content) for config in configs]

    def evaluate(self, content: Content) -> Observation:
        """Return what this signal observes about *content*."""
        raise NotImplementedError


class Unhosted(Heuristic):
    """A signal whose classifier is not hosted yet: observed as failed, never as not matching."""

    def evaluate(self, content: Content) -> Observation:
        """Return that nothing could be observed, and why."""
        del content
        return self.unobserved("failed", self.why)

    @property
    def why(self) -> str:
        """Return why nothing can be observed."""
        kind = type(self).model_fields["type"].default
        return f"no classifier for {kind} signals is hosted"


class Classified(SignalConfig):
    """A signal read off a hosted classifier; the inference itself happens elsewhere."""

    classifier: ClassVar[str]

    def encode(self, content: Content) -> str:
        """Return the text that the classifier should see."""
        raise NotImplementedError

    def references(self) -> Sequence[str]:
        """Return the texts of the policy whose vectors `decode` compares with."""
        return ()

    def decode(self, vector: NDArray[np.float32], references: NDArray[np.float32]) -> Observation:
        """Return the observation for one row and the rows of `references`, (n, dim)."""
        raise NotImplementedError


signal: Registry[SignalConfig] = Registry("signals")
