"""The project's Markdown files and what can be checked in them: code blocks, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.repository import ROOT

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """What it says."""
        return self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """Return the fenced blocks in *language*."""
        return [text for name, text in FENCED.findall(self.text) if name == language]

    def commands(self, program: str) -> Iterator[list[str]]:
        """Iterate over the arguments of every command of *program* that the document shows."""
        prose = FENCED.sub("", self.text)
        for line in (*INDENTED.findall(prose), *SPAN.findall(prose)):
            words = (
                shlex.split(line, comments=True) if line.startswith((program, f".venv/bin/{program}")) else []
            )
            if words and Path(words[0]).name == program:
                yield words[1:]

    def links(self) -> list[str]:
        """Return where its relative links lead."""
        found = LINK.findall(FENCED.sub("", self.text))
        return [target for target in found if not target.startswith(("http:", "https:"))]

    def anchors(self) -> set[str]:
        """Return the names of its headings, as links spell them."""
        titles = [title for _, title in HEADING.findall(FENCED.sub("", self.text))]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def section(self, title: str) -> str:
        """Return the text under heading *title*, to the next heading; raises `KeyError`."""
        parts = re.split(r"^#+ (.+)$", self.text, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[title]

    def first_column(self, title: str) -> list[str]:
        """Return the names in the first column of the table under heading *title*."""
        return re.findall(r"^\| `([^`]+)`", self.section(title), flags=re.MULTILINE)

    def between(self, name: str) -> str:
        """Return what lies between the marks *name*:begin and *name*:end."""
        found = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", self.text, re.DOTALL)
        if found is None:
            message = f"{self} has no marks {name}:begin and {name}:end"
            raise KeyError(message)
        return found.group(1)


def document(name: str) -> Document:
    """Return the document at *name*, from the root."""
    return Document(ROOT / name)


def documents() -> list[Document]:
    """Return every document for users."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Document(path) for path in found if "results" not in path.parts]
