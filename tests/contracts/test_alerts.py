"""Alerts fire on what is measured and lead to a page; no page is left without its alert."""

import re
from typing import Any

import pytest
import yaml

from streams.telemetry import Telemetry
from tests.architecture.repository import ROOT
from tests.contracts.documents import document

RULES = ROOT / "infra/alerts/signalbox.yaml"
PAGES = ROOT / "docs/runbooks"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in ALERTS]


def served() -> dict[str, set[str]]:
    """Return the name of every series that a worker serves, with its labels."""
    found: dict[str, set[str]] = {}
    for value in vars(Telemetry(lambda: 0, quiet=True)).values():
        if hasattr(value, "_labelnames"):
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
            for end in ends.get(value._type, ("",)):
                found[value._name + end] = set(value._labelnames)
    return found


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_an_alert_looks_at_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    """A rule over a metric that nobody serves never fires; nor does one that groups by what it has not."""
    known = served()
    metrics = set(re.findall(r"signalbox_\w+", rule["expr"]))
    grouped = {name for names in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in names.split(", ")}
    matched = set(re.findall(r"[{,](\w+)[!=]~?", rule["expr"]))
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    labels = set.union(*(known.get(metric, set()) for metric in metrics))

    assert metrics
    assert metrics <= set(known)
    assert grouped | matched | shown <= labels
    assert not grouped or shown <= grouped


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_an_alert_has_its_page_with_what_to_do(rule: dict[str, Any]) -> None:
    """Whoever is woken finds what it means, what it does, and the next step."""
    page = document(rule["annotations"]["runbook"])

    assert page.path.name == f"{rule['alert']}.md"
    assert page.text.startswith(f"# {rule['alert']}\n")
    assert page.section("What it does").strip()
    assert page.section("What to do").strip()
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_every_page_has_its_alert_and_a_row_in_the_index() -> None:
    """No page is left behind by an alert that is gone, and the index is complete."""
    pages = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README")
    index = document("docs/runbooks/README.md").text

    assert pages == sorted(NAMES)
    assert sorted(re.findall(r"^\| \[(\w+)\]", index, re.MULTILINE)) == pages
