"""The language that a text is written in, by its two-letter code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, Self

from agents.complaints import Complaint, Oddity
from agents.content import Content
from agents.signals import Heuristic, signal
from agents.text.languages import CODES, UNKNOWN, detect
from agents.text.window import window
from schemas.signal import Observation

_DEFAULT_THRESHOLD = 0.3
_FALLBACK = 0.5


@signal
class Language(Heuristic):
    """Match when the detected language has this code; no confidence is recorded.

    As in the original the lowest threshold of all language rules (0.3 if none has one) is the detector's
    for all of them; below it, and for text of no language, the answer is English with 0.5. With
    `thresholds: own` a rule's threshold is its own, and text of no language matches no rule.
    """

    collection: ClassVar[str] = "language"
    type: Literal["language"] = "language"
    description: str = ""
    threshold: float = 0.0
    # Ours: whether a threshold is the rule's own, or the lowest of all rules is everybody's.
    thresholds: Literal["lowest", "own"] = "lowest"

    def complaints(self) -> Iterator[Complaint]:
        """Iterate over a name that is no language, or a threshold out of range."""
        if self.name not in CODES:
            yield Complaint(("name",), "the name of a language rule is a two-letter code of ISO 639-1")
        if not 0.0 <= self.threshold <= 1.0:
            yield Complaint(("threshold",), "a threshold lies between 0 and 1")

    def oddities(self) -> Iterator[Oddity]:
        """Iterate over thresholds that hold for other rules too."""
        if self.threshold and self.thresholds == "lowest":
            message = "the lowest threshold of all language rules holds for each of them"
            fix = ((("thresholds",), "own"),)
            yield Oddity(("threshold",), "shared-language-threshold", message, "thresholds: own", fix)
        if self.name == "en" and self.thresholds == "lowest" and self.threshold <= _FALLBACK:
            message = "text of no language, or of an unsure one, counts as English"
            fix = ((("thresholds",), "own"),)
            yield Oddity(("name",), "english-by-default", message, "thresholds: own", fix)

    @classmethod
    def group(cls, configs: Sequence[Self]) -> Callable[[Content], Sequence[Observation]]:
        """Return what observes all *configs* by one detection, which is told as a label before them."""
        shared = [c.threshold for c in configs if c.threshold > 0 and c.thresholds == "lowest"]
        least = min(shared, default=_DEFAULT_THRESHOLD)
        own = any(c.thresholds == "own" for c in configs)

        def observe(content: Content) -> list[Observation]:
            text = window(content.text)
            code, confidence = detect(text, vanishing=not own)
            told = configs[0].observed(matched=False, label=code or "und", value=confidence)
            return [told, *(config.judged(code, confidence, least) for config in configs)]

        return observe

    def evaluate(self, content: Content) -> Observation:
        """Return whether the text is in this language, looked at alone."""
        return type(self).group([self])(content)[-1]

    def judged(self, code: str, confidence: float, least: float) -> Observation:
        """Return the observation for a detection; *least* is the threshold of all."""
        if self.thresholds == "own":
            matched = code == self.name and confidence >= (self.threshold or _DEFAULT_THRESHOLD)
            return self.observed(matched=matched)
        if code == UNKNOWN or confidence < least:
            code, confidence = "en", _FALLBACK
        matched = code == self.name and confidence >= self.threshold
        return self.observed(matched=matched)
