"""Why a request is refused before anything is observed: its metadata, or that nobody says who asks.

What the original answers with 400 and 403 while it routes is told at admission here, to whoever asks:
nothing that would fail for sure is written to a log (decision 015).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.errors import Refused
from agents.policy import Policy
from agents.policy_model import kind_of
from agents.text.envelope import utf8_size

_ENTRIES = 32
_KEY_BYTES = 128
_VALUE_BYTES = 1024


def metadata_refusal(document: Mapping[str, Any]) -> Refused | None:
    """Return why the metadata map of a body cannot be used, None if it can; entries are not quoted."""
    if "metadata" not in document:
        return None
    metadata = document["metadata"]
    if not isinstance(metadata, Mapping):
        return Refused("invalid_metadata", "metadata must be an object of strings")
    if len(metadata) > _ENTRIES:
        return Refused("invalid_metadata", f"metadata may have {_ENTRIES} entries, not {len(metadata)}")
    faults = (fault for key, value in metadata.items() if (fault := _fault_of(key, value)) is not None)
    fault = next(faults, None)
    return None if fault is None else Refused("invalid_metadata", fault)


def _fault_of(key: str, value: object) -> str | None:
    if not isinstance(value, str):
        return "a value of metadata is no string"
    if not 0 < utf8_size(key) <= _KEY_BYTES:
        return f"a key of metadata has from 1 to {_KEY_BYTES} bytes"
    return (
        f"a value of metadata has at most {_VALUE_BYTES} bytes" if utf8_size(value) > _VALUE_BYTES else None
    )


def identity_refusal(policy: Policy, recipe: str, headers: Mapping[str, str]) -> Refused | None:
    """Return why nobody may ask without a name: *recipe* decides by roles; None if it does not.

    *headers* have lower-case names. With `global.services.authz.fail_open` whoever has no name has no role.
    """
    routing = policy.routing_of(recipe)
    header = policy.identity.user_header
    if routing is None or headers.get(header) or policy.global_.services.authz.fail_open:
        return None
    if not any(kind_of(config) == "authz" for configs in routing.demanded.values() for config in configs):
        return None
    return Refused(
        "authz_identity_missing", f"decisions depend on roles, and header {header} does not say who asks"
    )
