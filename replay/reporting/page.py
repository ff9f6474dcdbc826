"""A report's document as one HTML file: no script, no font, no picture from anywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from replay.reporting import figures
from replay.reporting.document import facts_of, shown

Json = dict[str, Any]
TEMPLATE = "page.html.j2"
WORDS = {
    "better": "Better",
    "worse": "Worse",
    "not_enough_evidence": "Not enough evidence",
    "not_judged": "Not judged",
}


def page_of(told: Json) -> str:
    """Return the page of the document *told*."""
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["facts"] = facts_of
    template = environment.get_template(TEMPLATE)
    return template.render(told=told, word=WORDS[told["verdict"]["word"]], svg=_drawn(told), data=_data(told))


def _drawn(told: Json) -> dict[str, Markup]:
    """Return the plots that there is anything to draw of."""
    plots = told["plots"]
    found = {name: getattr(figures, name)(plots[name]) for name in plots if _has_points(plots[name])}
    return {name: Markup(svg) for name, svg in found.items()}  # noqa: S704 - drawn here, names are paths


def _has_points(plot: Any) -> bool:  # noqa: ANN401 - plain values
    if isinstance(plot, dict):
        return any(_has_points(part) for part in plot.values() if isinstance(part, list))
    return bool(plot)


def _data(told: Json) -> Markup:
    """Return the numbers as JSON that cannot end the element that it stands in."""
    text = json.dumps(told, ensure_ascii=True, indent=1, allow_nan=False)
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)  # noqa: S704 - every character that HTML reads is escaped
