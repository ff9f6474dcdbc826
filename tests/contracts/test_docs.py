"""The documentation says what the code does: examples load, commands exist, lists are complete."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import signalbox
from agents.admission import read_line
from agents.content import Content
from agents.policy import Policy
from agents.providers import provider
from agents.selectors import selector
from agents.signals import signal
from schemas.decision import Decision as DecisionRecord
from schemas.topics import table
from streams.app import load_registries
from streams.batch import Entry, output_line
from streams.settings import Settings
from streams.telemetry import EVENTS, Telemetry
from tests.architecture.repository import ROOT
from tests.contracts.documents import Document, document, documents

load_registries()
DOCUMENTS = documents()
POLICY = document("docs/policy.md")
SIGNALS = document("docs/signals.md")
OPERATIONS = document("docs/operations.md")
BATCH = document("docs/batch.md")
PLUGINS = [*signal, *selector]


def fields_of(cls: Any) -> set[str]:
    """Return the keys that a user writes for *cls*, but those that every plugin has."""
    spelled = getattr(cls, "written_as", {})
    named = {spelled.get(name, field.alias or name) for name, field in cls.model_fields.items()}
    return named - {"type", "name", "salt", "description"}


@pytest.mark.parametrize("shown", DOCUMENTS, ids=str)
def test_every_yaml_example_is_a_policy(shown: Document) -> None:
    """Whatever YAML a document shows can be routed by."""
    for text in shown.blocks("yaml"):
        assert Policy.parse(text, str(shown)).hash


@pytest.mark.parametrize("shown", DOCUMENTS, ids=str)
def test_every_json_example_is_json(shown: Document) -> None:
    """Whatever JSON a document shows can be read."""
    for text in shown.blocks("json"):
        assert json.loads(text)


def test_the_input_line_is_one() -> None:
    """The batch line that is shown is admitted, and has a custom id."""
    line = read_line(1, BATCH.blocks("json")[0].strip().encode())

    assert line.custom_id == "ticket-17"


def test_the_output_line_has_the_fields_of_one() -> None:
    """The output line that is shown has what `write_results` writes, and what it adds for accepted lines."""
    shown = json.loads(BATCH.blocks("json")[1])
    written = output_line(Entry(1, None, None, "invalid_json", "no"), None)

    assert set(shown) == {*written, "signalbox"}


def test_every_refusal_is_listed_and_no_other() -> None:
    """The codes of refused lines are those that the code can raise."""
    names = ("agents/admission.py", "agents/refusal.py", "streams/batch.py", "streams/claims.py")
    sources = tuple(ROOT / name for name in names)
    raised = {
        code
        for path in sources
        for code in re.findall(r'(?:Refused\(\s*|_object\(raw, )"(\w+)"', path.read_text(encoding="utf-8"))
    }

    assert set(BATCH.first_column("Refused lines")) == raised


def command_for(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that *words* name and what follows it; raises `KeyError` if there is none."""
    found: Any = typer.main.get_command(signalbox.app)
    rest = list(words)
    while rest and hasattr(found, "commands"):
        found = found.commands[rest.pop(0)]
    return found, rest


@pytest.mark.parametrize("shown", DOCUMENTS, ids=str)
def test_every_command_exists_with_its_options(shown: Document) -> None:
    """A command in a document can be typed: its name, its options, and as many arguments as it takes."""
    for words in shown.commands("signalbox"):
        command, rest = command_for(words)
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        options = [word for word in rest if word.startswith("--")]

        assert set(options) <= {*known, "--help"}, " ".join(words)


@pytest.mark.parametrize("name", sorted(typer.main.get_command(signalbox.app).commands))  # type: ignore[attr-defined]
def test_every_command_is_documented(name: str) -> None:
    """No command is known to its author alone."""
    shown = {words[0] for each in DOCUMENTS for words in each.commands("signalbox") if words}

    assert name in shown


@pytest.mark.parametrize("shown", DOCUMENTS, ids=str)
def test_every_make_target_exists(shown: Document) -> None:
    """What a document tells to make can be made."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {words[0] for words in shown.commands("make") if words} <= targets


@pytest.mark.parametrize("shown", DOCUMENTS, ids=str)
def test_links_lead_somewhere(shown: Document) -> None:
    """A relative link leads to a file that exists, and to a heading that it has."""
    for link in shown.links():
        place, _, anchor = link.partition("#")
        target = (shown.path.parent / place).resolve() if place else shown.path

        assert target.exists(), link
        assert not anchor or anchor in Document(target).anchors(), link


def test_the_table_of_topics_is_the_catalogue() -> None:
    """The table in the documentation is the one that the catalogue makes."""
    assert document("docs/architecture.md").between("topics") == table()


@pytest.mark.parametrize(("name", "cls"), PLUGINS, ids=[name for name, _ in PLUGINS])
def test_every_plugin_has_a_section_with_its_keys(name: str, cls: Any) -> None:
    """Whoever adds a signal or a selector says what may be written for it."""
    section = (SIGNALS if name in signal else POLICY).section(name)

    assert [key for key in sorted(fields_of(cls)) if f"`{key}`" not in section] == []


@pytest.mark.parametrize(("name", "cls"), [*signal], ids=[name for name, _ in signal])
def test_a_signal_is_in_the_example_and_names_its_role(name: str, cls: Any) -> None:
    """Each signal's collection is in the first example; its section tells collection and role."""
    section = SIGNALS.section(name)

    assert f"`{cls.collection}`" in section
    assert f"`{cls.role}`" in section
    assert Policy.parse(SIGNALS.blocks("yaml")[0]).routing.signals[cls.collection]


def test_every_dialect_is_named() -> None:
    """The documentation names every dialect of a provider."""
    section = document("docs/extending.md").section("A provider dialect")

    assert [name for name, _ in provider if f"`{name}`" not in section] == []


def test_every_setting_is_listed_with_its_default() -> None:
    """The table of settings is complete, and its defaults are those of the code."""
    rows = dict(
        re.findall(r"^\| `(SIGNALBOX_\w+)` \| (.*?) \|", OPERATIONS.section("Settings"), re.MULTILINE)
    )
    expected = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        expected[f"SIGNALBOX_{name.upper()}"] = f"`{default}`" if default not in ("", {}, None) else ""

    assert {name: default.strip() for name, default in rows.items()} == expected


def test_every_metric_is_listed_with_its_labels() -> None:
    """The table of metrics is what a worker serves."""
    telemetry = Telemetry(lambda: 0, quiet=True)
    served = {}
    for value in vars(telemetry).values():
        if hasattr(value, "_labelnames"):
            name = value._name + ("_total" if value._type == "counter" else "")
            served[name] = (value._type, tuple(value._labelnames))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", OPERATIONS.section("Metrics"), re.MULTILINE)

    assert {name: (kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels in rows} == served


def test_every_event_is_listed() -> None:
    """The table of log events is the closed list."""
    assert sorted(OPERATIONS.first_column("Log events")) == sorted(EVENTS)


def test_the_example_of_a_signal_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal that the documentation writes out can be registered and observes."""
    (text,) = document("docs/extending.md").blocks("python")
    (tmp_path / "brevity_example.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("brevity_example")
        brief: Any = signal["brevity"].model_validate({"name": "brief", "words": 3})
        body = json.dumps({"messages": [{"role": "user", "content": "Where is my order?"}]})
        observed = brief.evaluate(Content(body.encode()))
    finally:
        signal._classes.pop("brevity", None)

    assert (observed.matched, observed.value) == (False, 4.0)


def test_decisions_are_short_and_numbered() -> None:
    """A decision is a page of at most a dozen lines; numbers have no gap and stand in the title."""
    notes = sorted((ROOT / "docs/decisions").glob("*.md"))

    assert [int(path.name[:3]) for path in notes] == list(range(1, len(notes) + 1))
    assert [path.name for path in notes if len(path.read_text().splitlines()) > 12] == []
    assert [path.name for path in notes if not path.read_text().startswith(f"# {path.name[:3]}. ")] == []


def test_the_decision_fields_that_replay_compares_exist() -> None:
    """What the documentation calls core and meta are fields of a Decision."""
    assert {"core", "meta"} <= set(DecisionRecord.__dataclass_fields__)


def test_the_files_that_the_readme_names_exist() -> None:
    """Paths in the README's commands and tables lead to files of the repository."""
    text = document("README.md").text
    named = set(re.findall(r"^\| `([a-z_]+/)`", text, re.MULTILINE)) | set(
        re.findall(r"(infra/[\w./]+)", text)
    )

    assert [name for name in sorted(named) if not (ROOT / Path(name)).exists()] == []
