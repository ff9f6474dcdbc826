"""Where an archive lies: a folder, or a URI, which says where and never who asks.

An S3 place is written as that of the claim store: `s3://bucket/folder?endpoint=http://host:port&region=name`.
Credentials come from where AWS's own clients take them (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SHARED_CREDENTIALS_FILE`, a role): an address is seen in process lists, logs and error messages.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pyarrow import fs

from agents.errors import ConfigError

_OWN = "us-east-1"
"""The region of an endpoint of one's own, unless it is given: asking AWS for a bucket's region would fail."""


def filesystem_at(where: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of *where* and the path on it; raises `ConfigError`, which quotes no secret."""
    if "://" not in where:
        return fs.LocalFileSystem(), str(Path(where).resolve())
    try:
        parts = urlsplit(where)
        has_login = "@" in parts.netloc
        uri = urlunsplit(parts._replace(query=_query(parts.query))) if parts.scheme == "s3" else where
    except ValueError as error:
        raise ConfigError(f"the archive's address is no URI: {error}") from None
    if has_login:
        raise ConfigError(
            "the archive's address must hold no credentials: set AWS_ACCESS_KEY_ID ..., "
            f"and give {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        )
    try:
        found, root = fs.FileSystem.from_uri(uri)
    except ValueError as error:  # Arrow's errors for what is no URI, or not of a filesystem that it knows
        raise ConfigError(
            f"the archive's address cannot be used: {error}; "
            "on S3 it looks like s3://bucket/folder?endpoint=URL&region=NAME"
        ) from None
    return found, root


def _query(query: str) -> str:
    """Return Arrow's options for those of an address; raises `ConfigError` for an endpoint that is none."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    endpoint = options.pop("endpoint", "")
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        if scheme not in {"http", "https"} or not host:
            raise ConfigError("the archive's endpoint must look like https://host:port")
        options = {"region": _OWN, **options, "scheme": scheme, "endpoint_override": host.rstrip("/")}
    return urlencode(options)
