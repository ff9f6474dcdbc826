"""e to the power of x from IEEE additions and multiplications alone, alike for one float and for an array.

`math.exp` and `numpy.exp` differ in the last bit on some inputs, and a confidence that differs may
change a winner. Here every operation is one that IEEE 754 rounds in one way: x = k ln 2 + r with
ln 2 in two parts (Cody and Waite), a Taylor polynomial of r by Horner's rule, scaled by 2**k.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LOG2_E = 1.4426950408889634
# The upper part has 21 trailing zero bits, so that k times it is exact for every |k| < 2**20.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_TERMS = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
_LARGEST, _SMALLEST = 709.782712893384, -745.1332191019412

Floats = NDArray[np.float64]


def exp(x: float) -> float:
    """Return e**x, within 2 units in the last place; infinity above 709.78, 0 below -745.13."""
    if x != x:  # noqa: PLR0124 - true for NaN only
        return x
    if x > _LARGEST:
        return math.inf
    if x < _SMALLEST:
        return 0.0
    k = float(round(x * _LOG2_E))
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = _TERMS[0]
    for term in _TERMS[1:]:
        total = total * r + term
    # In two steps, since 2**1024 is no float; only the second can round.
    half = int(k) // 2
    return math.ldexp(math.ldexp(total, half), int(k) - half)


def exps(x: Floats) -> Floats:
    """Return e**x of each, the same bits as `exp`."""
    inside = np.clip(x, _SMALLEST, _LARGEST)
    # NaN has no integer part; it is put back below.
    inside = np.where(np.isnan(x), 0.0, inside)
    k = np.rint(inside * _LOG2_E)
    r = (inside - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.full_like(r, _TERMS[0])
    for term in _TERMS[1:]:
        total *= r
        total += term
    powers = k.astype(np.int64)
    half = powers // 2
    with np.errstate(under="ignore"):
        found = np.ldexp(np.ldexp(total, half), powers - half)
    found[x > _LARGEST] = math.inf
    found[x < _SMALLEST] = 0.0
    return np.where(np.isnan(x), x, found)
