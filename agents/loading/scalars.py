"""What a plain YAML scalar means: YAML 1.1 as yaml.v2, the original's library, resolves it.

`n`, `no`, `off` and their like are booleans, `010` is eight, `1_000` a thousand, a date a time. What is
then wanted as text is written anew from the value, so that a name `no` becomes ``false``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from datetime import UTC, datetime

Value = None | bool | int | float | str

_WORDS: dict[str, Value] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:[Tt]|[ ]+)(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?(Z)?)?"
)
_TAG = "tag:yaml.org,2002:"
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_LONGEST_NUMBER = 400
_SIX_DIGITS, _FOUR_ZEROS = 6, -4


class BadScalarError(ValueError):
    """A scalar does not have the type that its tag claims."""


def resolve(text: str, *, plain: bool, tag: str | None) -> Value:
    """Return what the scalar *text* means; raises `BadScalarError`."""
    if tag is None or tag == "!":
        return _plain(text) if plain and tag is None else text
    kind = tag.removeprefix(_TAG)
    if kind == "binary":
        return _binary(text)
    if kind not in {"int", "float", "bool", "null"}:
        return text
    found = _plain(text)
    if _kind(found) not in ({"int", "float"} if kind == "float" else {kind}):
        raise BadScalarError(f"the value is no {kind}, as its tag says")
    return float(found) if kind == "float" and isinstance(found, int) else found


def _kind(value: Value) -> str:
    names = {type(None): "null", bool: "bool", int: "int", float: "float"}
    return names.get(type(value), "str")


def _binary(text: str) -> str:
    try:
        return base64.b64decode(text, validate=False).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise BadScalarError("the value is not valid base64") from None


def _plain(text: str) -> Value:
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if first != ".":
        time = _time(text)
        if time is not None:
            return time
    return _number(text.replace("_", "") if first != "." else text, text)


def _number(digits: str, text: str) -> Value:
    """Return the number in *digits*, or *text* if there is none that fits."""
    match = _INTEGER.fullmatch(digits)
    if match is not None:
        body = match[2].lower()
        base = {"0x": 16, "0b": 2, "0o": 8}.get(body[:2], 8 if len(body) > 1 and body[0] == "0" else 10)
        value = int(body[2:] if body[1:2] in {"x", "b", "o"} else body, base)
        value = -value if match[1] == "-" else value
        if _LEAST <= value <= _MOST:
            return value
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        return number if math.isfinite(number) else text
    return text


def _time(text: str) -> str | None:
    """Return the time in *text* as it is written anew, None if it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction = (match[7] or "").rstrip("0")
    try:
        found = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return found.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + (f".{fraction}" if fraction else "") + "Z"


def written(value: bool | float | str) -> str:  # noqa: FBT001 - a value, not a switch
    """Return *value* as text, where text is wanted: as Go writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    return str(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    mantissa, exponent = f"{value!r}e0".split("e")[:2] if "e" not in repr(value) else repr(value).split("e")
    digits, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    significant = (digits + fraction).lstrip("0")
    leading = len(digits.lstrip("0")) or -(len(fraction) - len(fraction.lstrip("0")))
    power = leading - 1 + int(exponent) if significant else 0
    significant = significant.rstrip("0") or "0"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if power < _FOUR_ZEROS or power >= max(_SIX_DIGITS, 0):
        head, tail = significant[0], significant[1:]
        return f"{sign}{head}{'.' + tail if tail else ''}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{significant}"
    padded = significant.ljust(power + 1, "0")
    whole, rest = padded[: power + 1], padded[power + 1 :]
    return f"{sign}{whole}{'.' + rest if rest else ''}"
