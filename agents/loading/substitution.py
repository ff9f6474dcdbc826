"""Environment references in values: ``$V``, ``${V}``, ``${V:-d}``, ``${V-d}`` and ``$$``, as the original.

They are looked for in every text of a file, regular expressions included; an unset variable is "".
With ``substitution: explicit``, which is ours, only ``${NAME}`` and its two forms are references, ``$``
elsewhere is itself, and an unset variable without a default is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ANY = re.compile(r"\$\$|\$\{([^}]*)\}|\$([A-Za-z0-9_]+)", re.ASCII)
_EXPLICIT = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*(?::?-[^}]*)?)\}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Substituted:
    """A text after substitution, the variables that were not set, and whether it was changed."""

    text: str
    unset: tuple[str, ...] = ()
    changed: bool = False


def substitute(text: str, environment: Mapping[str, str], *, explicit: bool = False) -> Substituted:
    """Return *text* with its references replaced from *environment*."""
    if "$" not in text:
        return Substituted(text)
    unset: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        braced = match[1]
        inner = braced if braced is not None else match[2]
        return _referred(inner, environment, unset, defaults=braced is not None)

    found = (_EXPLICIT if explicit else _ANY).sub(replaced, text)
    return Substituted(found, tuple(unset), found != text)


def _referred(inner: str, environment: Mapping[str, str], unset: list[str], *, defaults: bool) -> str:
    """Return what the reference *inner* stands for; a name without value is noted in *unset*."""
    if not inner:
        return ""
    at = inner.find(":-") if defaults else -1
    if at > 0:
        return environment.get(inner[:at], "") or inner[at + 2 :]
    at = inner.find("-") if defaults else -1
    if at > 0:
        return environment.get(inner[:at], inner[at + 1 :])
    if inner not in environment:
        unset.append(inner)
    return environment.get(inner, "")
