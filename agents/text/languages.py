"""Which language a text is in: by its script where that decides, else by the n-grams of its words.

The labels are those of the original's detector, lingua; the detector itself is ours (eldc). As there,
words in a script or with letters of one language alone decide if they are the most; otherwise the
words of the commonest script are looked at, among the languages that are written in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache
from typing import Any

import eldc

UNKNOWN = ""
CODES = frozenset(
    [
        "af",
        "sq",
        "ar",
        "hy",
        "az",
        "eu",
        "be",
        "bn",
        "nb",
        "bs",
        "bg",
        "ca",
        "zh",
        "hr",
        "cs",
        "da",
        "nl",
        "en",
        "eo",
        "et",
        "fi",
        "fr",
        "lg",
        "ka",
        "de",
        "el",
        "gu",
        "he",
        "hi",
        "hu",
        "is",
        "id",
        "ga",
        "it",
        "ja",
        "kk",
        "ko",
        "la",
        "lv",
        "lt",
        "mk",
        "ms",
        "mi",
        "mr",
        "mn",
        "nn",
        "fa",
        "pl",
        "pt",
        "pa",
        "ro",
        "ru",
        "sr",
        "sn",
        "sk",
        "sl",
        "so",
        "st",
        "es",
        "sw",
        "sv",
        "tl",
        "ta",
        "te",
        "th",
        "ts",
        "tn",
        "tr",
        "uk",
        "ur",
        "vi",
        "cy",
        "xh",
        "yo",
        "zu",
    ]
)
"""The languages that a rule may name, by ISO 639-1."""

# Scripts that one language alone is written in.
_ALONE = {
    "hy": "\u0530-\u058f\ufb13-\ufb17",
    "bn": "\u0980-\u09fe",
    "ka": "\u10a0-\u10ff\u1c90-\u1cbf\u2d00-\u2d2d",
    "el": "\u0370-\u0373\u0375-\u0377\u037a-\u037d\u037f\u0384\u0386\u0388-\u03e1\u03f0-\u03ff\u1f00-\u1ffe",
    "gu": "\u0a80-\u0aff",
    "pa": "\u0a01-\u0a76",
    "ko": "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7fb\uffa0-\uffdc",
    "he": "\u0591-\u05f4\ufb1d-\ufb4f",
    "ta": "\u0b82-\u0bfa",
    "te": "\u0c00-\u0c7f",
    "th": "\u0e01-\u0e3a\u0e40-\u0e5b",
    "ja": "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    "zh": "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9"
    "\U00020000-\U0003fffd",
}
# Letters that one language alone uses, of the scripts that several share.
_LETTERS = {
    "az": "\u0259",
    "ca": "ï",
    "cs": "ěřů",
    "eo": "ĉĝĥĵŝŭ",
    "de": "ß",
    "hu": "őű",
    "kk": "әғқңұ",
    "lv": "ģķļņ",
    "lt": "ėįų",
    "mk": "ѓѕќџ",
    "mr": "ळ",
    "mn": "өү",
    "pl": "łńśź",
    "ro": "țţ",
    "sr": "ђћ",
    "sk": "ĺľŕ",
    "uk": "ґєї",
    "vi": "ằầẳẩẵẫắấạặậềẻểẽễếệỉĩịơồờỏổởỗỡốớộợưừủửũữứụựỳỷỹỵ",
    "yo": "ōṣ",
}
_SHARED = {
    "latin": "a-z\u00aa\u00ba\u00e0-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "devanagari": "\u0900-\u097f",
}
# Statistics are never certain: rules with a threshold of 1 are for scripts and letters of one language.
_MOST = 0.9999
_LONGEST_DEVANAGARI = 500
# Least confidence, and how fast it grows with each letter and point between the two best languages: chosen
# so that as many texts as possible fall on the original's side of its thresholds.
_CALIBRATION = {
    "latin": (0.0, 0.2),
    "cyrillic": (0.0, 1.6),
    "arabic": (0.0, 1.6),
    "devanagari": (0.5, 0.05),
}
_LANGUAGES = {
    "latin": "az,ca,cs,da,de,en,es,et,eu,fi,fr,hr,hu,is,it,lt,lv,ms,nl,no,pl,pt,ro,sk,sl,sq,sv,tl,tr,vi,yo",
    "cyrillic": "be,bg,ru,sr,uk",
    "arabic": "ar,fa,ur",
    "devanagari": "hi,mr",
}
# What our detector calls otherwise, or cannot tell apart from its bigger neighbour.
_RENAMED = {"no": "nb", "ms": "id"}

_BY_SCRIPT = re.compile("|".join(f"(?P<{name}>[{chars}])" for name, chars in {**_ALONE, **_SHARED}.items()))
_OWNER = {letter: code for code, letters in _LETTERS.items() for letter in letters}
# Runs of letters; the logograms and syllables of East Asia are words one by one.
_EAST = f"{_ALONE['zh']}{_ALONE['ja']}{_ALONE['ko']}"
_WORD = re.compile(rf"[{_EAST}]|(?:(?![{_EAST}])[^\W\d_])+")


def detect(text: str, *, vanishing: bool = True) -> tuple[str, float]:
    """Return the code of the language of *text* and the detector's confidence, `UNKNOWN` and 0 if none.

    Unless *vanishing* is False nothing is certain about a long text in Devanagari: the original's
    probabilities for it are too small for a float.
    """
    words = _WORD.findall(text.lower())
    if not words:
        return UNKNOWN, 0.0
    ruled = _by_rules(words)
    if ruled:
        return ruled, 1.0
    script, text = _commonest_script(words)
    if vanishing and script == "devanagari" and len(text) > _LONGEST_DEVANAGARI:
        return UNKNOWN, 0.0
    return _by_ngrams(script, text)


def _by_rules(words: list[str]) -> str:
    """Return the language that most words belong to by script or letters, "" if that is not certain."""
    counts = Counter(_owner(word) for word in words)
    if counts[UNKNOWN] < 0.5 * len(words):
        del counts[UNKNOWN]
    if set(counts) == {"zh", "ja"}:
        return "ja"
    return _first(counts)


def _owner(word: str) -> str:
    """Return the language that alone has the script or some letter of *word*, "" if none or several do."""
    if word.isascii():
        return UNKNOWN
    counts: Counter[str] = Counter()
    for char in word:
        script = _script(char)
        if script in _ALONE:
            counts[script] += 1
        elif char in _OWNER:
            counts[_OWNER[char]] += 1
    return "ja" if {"ja", "zh"} <= set(counts) else _first(counts)


def _first(counts: Counter[str]) -> str:
    """Return what is counted most often, "" if two are."""
    ranked = counts.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return UNKNOWN
    return ranked[0][0]


def _script(char: str) -> str:
    found = _BY_SCRIPT.match(char)
    return str(found.lastgroup) if found else ""


def _commonest_script(words: list[str]) -> tuple[str, str]:
    """Return the script of most words, "" if none is known, and the words in it."""
    scripts = [_script_of(word) for word in words]
    counts = Counter(script for script in scripts if script)
    script = counts.most_common(1)[0][0] if counts else ""
    return script, " ".join(word for word, found in zip(words, scripts, strict=True) if found == script)


def _by_ngrams(script: str, text: str) -> tuple[str, float]:
    """Return what the n-grams of *text* say, which is in one *script*."""
    if script in _ALONE:
        return script, 1.0
    if not script:
        return UNKNOWN, 0.0
    result = _detectors()[script].detect_details(text)
    code = _RENAMED.get(result.language, result.language)
    return (code, _confidence(script, text, result.scores)) if code in CODES else (UNKNOWN, 0.0)


def _script_of(word: str) -> str:
    """Return the script of *word*, "" if it is in several or in none that is known."""
    if word.isascii():
        return "latin"
    scripts = {_script(char) for char in word}
    return scripts.pop() if len(scripts) == 1 else ""


def _confidence(script: str, text: str, scores: dict[str, float]) -> float:
    ranked = sorted(scores.values(), reverse=True)
    gap = ranked[0] - ranked[1] if len(ranked) > 1 else ranked[0]
    floor, scale = _CALIBRATION[script]
    return min(floor + (1.0 - floor) * (1.0 - math.exp(-scale * gap * len(text))), _MOST)


@cache
def _detectors() -> dict[str, Any]:
    """Return a detector for each script, loaded when first needed."""
    eldc.init()
    return {script: _detector(codes) for script, codes in _LANGUAGES.items()}


def _detector(codes: str) -> Any:  # noqa: ANN401 - eldc ships no types
    detector = eldc.instance()
    detector.set_languages(codes)
    detector.set_scores(2)
    return detector
