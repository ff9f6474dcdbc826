"""Which kinds of content a request carries: text, images, audio or video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from agents.content import Content
from agents.signals import Heuristic, signal
from schemas.signal import Observation

_PART_TYPES = {
    "text": "text",
    "input_text": "text",
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "video_url": "video",
    "input_video": "video",
    "video": "video",
}


@signal
class InputModality(Heuristic):
    """Match when some message has a part of *modality*; the value is how many there are."""

    collection: ClassVar[str] = "input_modality"
    type: Literal["input_modality"] = "input_modality"
    description: str = ""
    modality: str = ""

    def evaluate(self, content: Content) -> Observation:
        """Return whether the kind occurs in any message."""
        parts = sum(kind == (self.modality or self.name) for m in content.messages for kind in _kinds(m))
        return self.observed(matched=parts > 0, value=float(parts))


def _kinds(message: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over the kinds of the parts of *message*."""
    content = message.get("content")
    if isinstance(content, str):
        yield "text" if content else ""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            yield _PART_TYPES.get(str(part.get("type")), "")
