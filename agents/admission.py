"""Turn what a caller sent into a Request, or say why not: one pure step, wherever it runs.

It names the request, seals its body, and stamps the policy, the recipe and the absolute
`decide_by` that every later stage obeys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from agents.errors import Refused
from agents.policy import Policy
from agents.refusal import identity_refusal, metadata_refusal
from schemas.identity import (
    body_digest,
    custom_request_id,
    idempotency_id,
    inbox_request_id,
    keyed_request_id,
    line_request_id,
)
from schemas.request import Request
from schemas.sealed import Body, seal_plainly

MAX_BODY = 32 * 1024 * 1024
"""The most bytes of any body. What is too large for a record goes to the claim store before that."""
MAX_LINE = MAX_BODY + 1024 * 1024
ENDPOINTS = ("/v1/chat/completions",)
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "key",
        "password",
        "secret",
        "token",
    }
)
_MAX_CUSTOM_ID = 512
_MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Line:
    """A batch line that could be read: what it asks and how its caller named it."""

    number: int
    custom_id: str | None
    endpoint: str
    body: bytes
    model: str
    headers: Mapping[str, str]
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Who submits, into which run, under which policy; times are ms since the epoch."""

    policy: Policy
    tenant: str
    now: int
    run: str = ""

    def batch(self, line: Line) -> Request:
        """Return the request of a batch line; raises `Refused`."""
        if line.idempotency_key is not None:
            request_id = self._keyed(line, line.idempotency_key)
        elif line.custom_id is None:
            request_id = line_request_id(self.tenant, self.run, line.number)
        else:
            request_id = custom_request_id(self.tenant, self.run, line.custom_id)
        return self._request(request_id, line, "batch")

    def inbox(self, line: Line, cluster: str, place: tuple[str, int, int]) -> Request:
        """Return the request of a foreign record at *place* (topic, partition, offset); raises `Refused`."""
        if line.idempotency_key is not None:
            return self._request(self._keyed(line, line.idempotency_key), line, "inbox")
        return self._request(inbox_request_id(cluster, *place), line, "inbox")

    def _keyed(self, line: Line, key: str) -> bytes:
        canonical = orjson.dumps(orjson.loads(line.body), option=orjson.OPT_SORT_KEYS)
        return keyed_request_id(idempotency_id(self.tenant, key), body_digest(self.tenant, canonical))

    def _request(self, request_id: bytes, line: Line, source: str) -> Request:
        recipe = self.policy.recipe_for(line.model)
        if recipe is None:
            known = ", ".join(sorted(self.policy.models)[:10])
            message = f"no model of this name; use one of {known}, or auto"
            raise Refused("model_not_found", message)
        if line.endpoint not in ENDPOINTS:
            message = f"url must be one of: {', '.join(ENDPOINTS)}"
            raise Refused("unsupported_url", message)
        limit = int(self.policy.deadlines.request_s * 1000)
        batch = source == "batch"
        identity = self.policy.identity
        stated = {identity.user_header, identity.groups_header}
        headers = {k: v for k, v in line.headers.items() if k in stated or not _is_secret(k)}
        refusal = identity_refusal(self.policy, recipe, headers)
        if refusal is not None:
            raise refusal
        subject = headers.get(identity.user_header)
        groups = [g.strip() for g in headers.get(identity.groups_header, "").split(",")]
        return Request(
            request_id=request_id,
            tenant=self.tenant,
            source=source,
            body=Body(len(line.body), body_digest(self.tenant, line.body), seal_plainly(line.body)),
            endpoint=line.endpoint,
            requested_model=line.model,
            accepted_at=self.now,
            decide_by=self.now + limit // 2,
            deadline=self.now + limit,
            policy_hash=self.policy.hash,
            recipe=recipe,
            run=self.run,
            custom_id=line.custom_id,
            line=line.number if batch else None,
            idempotency_key=line.idempotency_key,
            subject=seal_plainly(subject.encode()) if subject else None,
            roles=tuple(g for g in groups if g),
            headers=seal_plainly(orjson.dumps(headers, option=orjson.OPT_SORT_KEYS)) if headers else None,
        )


def read_line(number: int, raw: bytes) -> Line:
    """Return batch line *number* (from 1); raises `Refused` with a code, quoting nothing."""
    if len(raw) > MAX_LINE:
        raise _too_large(len(raw), MAX_LINE)
    document = _object(raw, "invalid_json")
    custom_id = document.get("custom_id")
    if custom_id is not None and not (isinstance(custom_id, str) and 0 < len(custom_id) <= _MAX_CUSTOM_ID):
        message = f"custom_id must be a string of 1 to {_MAX_CUSTOM_ID} characters"
        raise Refused("invalid_request", message)
    if str(document.get("method", "POST")).upper() != "POST":
        message = "method must be POST"
        raise Refused("invalid_request", message)
    body = document.get("body")
    if not isinstance(body, dict):
        message = "body must be a JSON object"
        raise Refused("invalid_request", message)
    headers = document.get("headers") or {}
    line = _line(number, custom_id, str(document.get("url", ENDPOINTS[0])), body, headers)
    return replace(line, idempotency_key=_idempotency_key(document, line.headers))


def read_foreign(raw: bytes) -> Line:
    """Return the request in a foreign JSON record: a batch line, or a chat body by itself.

    Raises `Refused`.
    """
    document = _object(raw, "invalid_json")
    if isinstance(document.get("body"), dict):
        return read_line(0, raw)
    return _line(0, None, ENDPOINTS[0], document, {})


def partition_key(request: Request) -> bytes:
    """Return what the partition of *request* is chosen by: requests with one idempotency key lie together."""
    if request.idempotency_key is None:
        return request.request_id
    return idempotency_id(request.tenant, request.idempotency_key)


def _idempotency_key(document: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return the key that a line gives in `idempotency_key`, or in the header `Idempotency-Key`."""
    key = document.get("idempotency_key", headers.get("idempotency-key"))
    if key is None:
        return None
    if not (isinstance(key, str) and 0 < len(key) <= _MAX_KEY):
        message = f"idempotency_key must be a string of 1 to {_MAX_KEY} characters"
        raise Refused("invalid_request", message)
    return key


def custom_id_of(raw: bytes) -> str | None:
    """Return the custom id of a line that was refused, if it can be read at all."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    found = document.get("custom_id") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def _line(number: int, custom_id: str | None, url: str, body: dict[str, Any], headers: object) -> Line:
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        message = "headers must be an object of strings"
        raise Refused("invalid_request", message)
    model = "" if body.get("model") is None else body["model"]
    if not isinstance(model, str):
        message = "model must be a string"
        raise Refused("invalid_request", message)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        message = "messages must be a non-empty list of objects"
        raise Refused("invalid_request", message)
    refusal = metadata_refusal(body)
    if refusal is not None:
        raise refusal
    try:
        encoded = orjson.dumps(body)
    except orjson.JSONEncodeError:
        message = "body is nested too deeply"
        raise Refused("invalid_request", message) from None
    if len(encoded) > MAX_BODY:
        raise _too_large(len(encoded), MAX_BODY)
    return Line(number, custom_id, url, encoded, model, {k.lower(): v for k, v in headers.items()})


def _is_secret(header: str) -> bool:
    """Tell whether a header is a credential by its name; such a header is never kept."""
    return not _SECRET_WORDS.isdisjoint(re.split("[-_]", header.lower()))


def _too_large(size: int, limit: int) -> Refused:
    message = f"{size} bytes are more than the {limit} that a body may have; shorten it or split it"
    return Refused("body_too_large", message)


def _object(raw: bytes, code: str) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = "the line is not valid JSON"
        raise Refused(code, message) from None
    if not isinstance(document, dict):
        message = "the line is not a JSON object"
        raise Refused(code, message)
    return document
