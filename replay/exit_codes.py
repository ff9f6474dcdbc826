"""The exit code for a log or archive that cannot be read: what is wrong with it, or with the way to it."""

from __future__ import annotations

import re

USAGE, DOWN = 2, 3

_AWS = re.compile(r"AWS Error (\w+)")
_TOLD = {
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_SIGNATURE",
    "NO_SUCH_BUCKET",
    "NO_SUCH_KEY",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}
"""What S3 answers where asking again would not help; Arrow gives some of these an `errno`, not all."""


def code_of(error: Exception, where: str = "") -> int:
    """Return 3 if *error* says that the service behind the URI *where* does not answer, else 2.

    Errors of files, and Arrow's for what is not there, carry an `errno`: somebody answered.
    """
    if "://" not in where or not isinstance(error, OSError) or error.errno is not None:
        return USAGE
    told = _AWS.search(str(error))
    return USAGE if told is not None and told[1] in _TOLD else DOWN
