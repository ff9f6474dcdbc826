"""What every piece of a policy document is: frozen, with finite numbers and no key that it does not know.

The loader drops (and tells) unknown keys before; in a normal form there are none.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen piece of the document."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)
