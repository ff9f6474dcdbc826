"""Make a logged decision again, and encode it as the log's own schema would have."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import fastavro

import agents.selectors
import agents.signals
from agents.decision import Sets, failed
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from agents.errors import InvalidRecord
from agents.policy import Policy
from schemas.codec import SchemaEntry, committed, todays
from schemas.compiled import encoder
from schemas.decision import Decision, DecisionCore, Facts
from schemas.shape import Packer

DECIDER = "agents.decision:decide"
"""The function that decides, as ``module:name``, so that a fresh process can find it too."""


class Decider(Protocol):
    """The signature of `agents.decision.decide`."""

    def __call__(
        self, policy: Policy, *, recipe: str, request_id: bytes, sets: Sets, facts: Facts
    ) -> DecisionCore:
        """Return the decision of *policy* over *sets* and *facts*."""
        ...


@dataclass(frozen=True, slots=True)
class Raised:
    """What deciding raised instead of returning a decision."""

    error: str


def load_plugins() -> None:
    """Fill the registries that a policy refers to."""
    agents.selectors.selector.load(agents.selectors)
    agents.signals.signal.load(agents.signals)


def decider_of(reference: str) -> Decider:
    """Return the function that ``module:name`` refers to."""
    module, name = reference.split(":")
    return cast("Decider", getattr(importlib.import_module(module), name))


class Remaker:
    """Makes decisions again under the logged policies *texts*, with the function *decider*."""

    def __init__(self, texts: Mapping[str, str], decider: str = DECIDER) -> None:
        self._texts = texts
        self._decide = decider_of(decider)
        self._policies: dict[str, Policy] = {}

    def __contains__(self, policy_hash: object) -> bool:
        """Tell whether the log holds the policy."""
        return policy_hash in self._texts

    def policy(self, policy_hash: str) -> Policy:
        """Return the logged policy; raises `InvalidRecord` if its text is not what its hash says."""
        if policy_hash not in self._policies:
            text = self._texts[policy_hash]
            actual = hashlib.sha256(text.encode()).hexdigest()
            if actual != policy_hash:
                message = (
                    f"the log's text of policy {policy_hash[:12]} hashes to {actual[:12]}: it was altered"
                )
                raise InvalidRecord(message)
            self._policies[policy_hash] = Policy.loads(text)
        return self._policies[policy_hash]

    def again(self, logged: Decision, sets: Sets) -> Decision | Raised:
        """Return *logged* with the core that is decided now."""
        core = logged.core
        if core.failure in {DEAD_LETTERED, TAKEN_BACK}:
            # Nothing was decided: a stage only said that it gave the record up.
            return replace(logged, core=failed(core.policy_hash, core.recipe, core.failure))
        policy = self.policy(core.policy_hash)
        try:
            made = self._decide(
                policy, recipe=core.recipe, request_id=logged.request_id, sets=sets, facts=core.facts
            )
        except Exception as error:  # noqa: BLE001 - whatever it raises, the decision was not made again
            return Raised(f"{type(error).__name__}: {error}")
        return replace(logged, core=made)


class CoreEncoder:
    """Encodes decisions with the schema under which each was logged.

    The whole Decision is encoded, since a core's schema may refer to types that the record declares
    before it; two decisions that differ in nothing but the core are equal exactly if their cores are.
    """

    def __init__(self, schemas: Mapping[int, SchemaEntry]) -> None:
        self._entries = {**committed(), **schemas}
        self._schemas: dict[int, Any] = {}
        self._todays = {e.schema_id for e in todays().values() if self._entries[e.schema_id] == e}
        self._write = encoder(Decision)
        self._packer: Packer[Decision] = Packer(Decision)

    def encode(self, schema_id: int, decision: Decision) -> bytes:
        """Return the Avro body of *decision* under schema *schema_id*."""
        if schema_id in self._todays:
            parts: list[bytes] = []
            self._write(decision, parts.append)
            return b"".join(parts)
        if schema_id not in self._schemas:
            self._schemas[schema_id] = fastavro.parse_schema(json.loads(self._entries[schema_id].text))
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schemas[schema_id], self._packer.pack(decision))
        return out.getvalue()
