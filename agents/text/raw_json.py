"""Where the values of a JSON document stand in its bytes, for what is counted as it was sent.

A parser forgets white space, escapes and the digits of large numbers; an estimate of bytes may not.
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"

Path = tuple[str | int, ...]
Span = tuple[int, int]


class RawDocument:
    """The bytes of a valid JSON document; where a key stands twice, the first counts."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._children: dict[Path, dict[str | int, Span]] = {}

    def size(self, path: Path) -> int:
        """Return how many bytes the value at *path* takes; 0 if there is none."""
        start, end = self._span(path)
        return end - start

    def text(self, path: Path) -> bytes:
        """Return the bytes of the value at *path*, without white space around it."""
        start, end = self._span(path)
        return self._body[start:end]

    def _span(self, path: Path) -> Span:
        if not path:
            return (0, len(self._body))
        parent = path[:-1]
        children = self._children.get(parent)
        if children is None:
            children = self._children[parent] = self._split(self._span(parent))
        return children.get(path[-1], (0, 0))

    def _split(self, span: Span) -> dict[str | int, Span]:
        """Return key or index -> span of the values in the object or array at *span*."""
        pieces = self._pieces(span)
        if not self._body[span[0] : span[1]].lstrip().startswith(b"{"):
            return dict(enumerate(pieces))
        members: dict[str | int, Span] = {}
        for key, value in zip(pieces[::2], pieces[1::2], strict=False):
            members.setdefault(_string(self._body[key[0] : key[1]]), value)
        return members

    def _pieces(self, span: Span) -> list[Span]:
        """Return the spans one level inside *span*, keys included."""
        pieces: list[Span] = []
        depth, start = 0, -1
        for token in _TOKEN.finditer(self._body, *span):
            first = self._body[token.start() : token.start() + 1]
            if first in _CLOSING:
                depth -= 1
                if depth == 1:
                    pieces.append((start, token.end()))
            elif depth == 1 and first in _OPENING:
                start = token.start()
            elif depth == 1 and first not in b":,":
                pieces.append(token.span())
            if first in _OPENING:
                depth += 1
        return pieces


def _string(raw: bytes) -> str:
    if b"\\" not in raw:
        return raw[1:-1].decode("utf-8", "replace")

    return str(json.loads(raw))


def compact(body: bytes) -> bytes:
    """Return valid JSON *body* without the white space between its tokens."""
    return b"".join(token.group() for token in _TOKEN.finditer(body))
