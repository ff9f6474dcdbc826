"""The exit code for a log or archive that cannot be read: what is wrong with it, or with the way to it."""

from __future__ import annotations

USAGE, DOWN = 2, 3


def code_of(error: Exception, where: str = "") -> int:
    """Return 3 if *error* says that the service behind the URI *where* does not answer, else 2.

    What it does say, such as that there is no such bucket, and errors of files here carry an `errno`.
    """
    away = isinstance(error, OSError) and error.errno is None
    return DOWN if away and "://" in where else USAGE
