"""What can be said about a part of a policy: it is refused (a complaint), or it is odd (an oddity).

Paths are relative to the part: keys and indices, outermost first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Path = tuple[str | int, ...]
Stage = Literal["load", "start"]


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a part is refused, and when the original would: at `load`, or at the `start` of its process.

    Where `portable` is the fault, the original alone refuses it: here it has a meaning.
    """

    path: Path
    message: str
    stage: Stage = "load"
    portable: bool = False
    condition: str = ""
    """The type of the leaf that is at fault, of complaints about rules."""

    def below(self, *path: str | int) -> Complaint:
        """Return the complaint as the part at *path* has it."""
        return replace(self, path=(*path, *self.path))


ANY_OF = object()
"""As the value of a fix: put the conditions that are there under one OR."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """What a part does that its writer can hardly mean; `remedy` is the key (or change) that ends it.

    `fix` is what `policy modernize` sets, path relative to the part -> value; None removes the key.
    """

    path: Path
    code: str
    message: str
    remedy: str = ""
    fix: tuple[tuple[Path, object], ...] = ()

    def below(self, *path: str | int) -> Oddity:
        """Return the oddity as the part at *path* has it."""
        fix = tuple(((*path, *place), value) for place, value in self.fix)
        return Oddity((*path, *self.path), self.code, self.message, self.remedy, fix)
