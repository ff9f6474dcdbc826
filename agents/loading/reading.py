"""Text to a policy, or to the complaints that refuse it, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agents.complaints import Complaint, Path
from agents.errors import ConfigError
from agents.loading.decoding import Decoded, decode
from agents.loading.removed import LAYOUT, removed, unserved
from agents.loading.tree import Tree
from agents.loading.tree import read as read_tree

SYNTAX = "(YAML syntax or type)"
_MOST_TOLD = 5


class Checked(BaseModel):
    """A document that says of itself, once it has been decoded, what is wrong with it."""

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over why it is refused."""
        raise NotImplementedError


C = TypeVar("C", bound=Checked)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the original makes of a file: accepted, or refused at load or at start for one field."""

    verdict: str
    stage: str
    field: str | None = None


@dataclass(slots=True)
class Reading(Generic[C]):
    """A file that has been read: its values, what was met on the way, and the policy if it is one."""

    tree: Tree
    decoded: Decoded = field(default_factory=Decoded)
    policy: C | None = None
    complaints: list[Complaint] = field(default_factory=list)
    blamed: str = ""
    """What the original blames where it is no field."""

    @property
    def refused(self) -> list[Complaint]:
        """The complaints that count here, leaving out what the original alone refuses."""
        return [complaint for complaint in self.complaints if not complaint.portable]

    def accepted(self) -> C:
        """Return the policy; raises `ConfigError` with the places of what is wrong."""
        wrong = self.refused
        if wrong or self.policy is None:
            told = [str(self.tree.refuse(each.path, each.message)) for each in wrong[:_MOST_TOLD]]
            raise ConfigError("; ".join(told))
        return self.policy

    @property
    def verdict(self) -> Verdict:
        """What the original makes of the file."""
        found = next((each for each in self.complaints if each.stage == "load"), None)
        found = found or next(iter(self.complaints), None)
        if found is None:
            return Verdict("accept", "load")
        return Verdict("reject", found.stage, self.blamed or field_of(found, self.tree.value))


def read(cls: type[C], text: str, where: str, environment: Mapping[str, str]) -> Reading[C]:
    """Return what *text* comes to as a *cls*; raises `ConfigError` if it is no YAML document."""
    reading: Reading[C] = Reading(read_tree(text, where, environment))
    document = reading.tree.value
    if not isinstance(document, dict | None):
        reading.blamed = SYNTAX
        reading.complaints.append(Complaint((), "a policy is a mapping with the key routing or global"))
        return reading
    reading.complaints.extend(removed(document or {}))
    if reading.complaints:
        return reading
    if document is None or not {"routing", "global"} & set(document):
        reading.blamed = LAYOUT
        served = document is not None and "providers" in document
        reading.complaints.append(Complaint((), "neither routing nor global is there", portable=served))
        if not served:
            return reading
    reading.decoded = decode(cls, reading.tree)
    if reading.decoded.faults:
        reading.blamed = SYNTAX
        reading.complaints.extend(reading.decoded.faults)
        return reading
    _validate(cls, reading, document or {})
    return reading


def _validate(cls: type[C], reading: Reading[C], document: Mapping[str, Any]) -> None:
    try:
        found = cls.model_validate(reading.decoded.value)
    except ValidationError as error:
        reading.complaints.extend(_told(error))
        return
    except RecursionError:
        reading.complaints.append(Complaint((), "nested too deeply"))
        return
    reading.policy = found
    reading.complaints.extend(unserved(document))
    reading.complaints.extend(found.complaints())


def _told(error: ValidationError) -> Iterator[Complaint]:
    """Iterate over what pydantic refuses, which are limits of our own; inputs are not quoted."""
    for each in error.errors(include_input=False, include_url=False):
        yield Complaint(tuple(each["loc"]), str(each["msg"]))


def field_of(complaint: Complaint, value: Any) -> str:  # noqa: ANN401 - plain values
    """Return the blamed place as text, list items by their names: ``routing.decisions[legal].tier``."""
    path: Path = complaint.path
    if path[:1] == ("recipes",) and path[2:3] == ("routing",):
        value, path = _at(value, path[:2]), path[2:]
    text = ""
    for key in path:
        value = _at(value, (key,))
        if isinstance(key, int):
            name = (value.get("name") or value.get("model")) if isinstance(value, dict) else None
            text += f"[{name or key}]"
        else:
            text += f".{key}" if text else key
    return f"{text} ({complaint.condition} condition)" if complaint.condition else text


def _at(value: Any, path: Path) -> Any:  # noqa: ANN401 - plain values
    """Return what stands at *path* in *value*, None if nothing does."""
    for key in path:
        known = isinstance(value, dict) and key in value
        known = known or (isinstance(value, list) and isinstance(key, int) and key < len(value))
        value = value[key] if known else None
    return value
