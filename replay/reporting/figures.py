"""The report's plots as SVG that can stand inside a page: transparent, in the page's own text colour.

Every plot takes the plain values that the report's JSON holds, so that anybody can draw it again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

Json = Mapping[str, Any]
_INK = "#010203"
"""Stands for the page's text colour: replaced by `currentColor`, so that it is read on light and dark."""
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#3b82c4", "#d9731a", "#2f9e6e", "#9a6fc4", "#8a8f98"
_KINDS = {
    "single": ("o", _GREY, "one model for all"),
    "random": ("s", _PURPLE, "random"),
    "logging": ("D", _BLUE, "logging policy"),
    "target": ("*", _ORANGE, "target policy"),
    "oracle": ("^", _GREEN, "oracle"),
}
_SIZES = {"target": 190.0, "logging": 70.0}
_WIDTH = 6.2
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "signalbox",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    # Prices may hold a dollar sign, names an underscore: neither is mathematics.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}


def drawn(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Return what *draw* puts on a figure of *height* inches as an SVG element; its ids begin with *name*."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    return svg.replace(_INK, "currentColor").replace("xlink:href", "href").strip()


def front(found: Json) -> str:
    """Return the plane of cost and quality, or quality alone where no cost is known."""
    points = found["points"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if found["cost_known"]:
            _plane(axes, points)
        else:
            _column(axes, points)

    return drawn("front", 3.9 if found["cost_known"] else 0.9 + 0.34 * len(points), draw)


def _plane(axes: Axes, points: Sequence[Json]) -> None:
    seen: set[str] = set()
    placed = [point for point in points if point["cost"] is not None and point["quality"] is not None]
    for point in placed:
        marker, colour, label = _KINDS[point["kind"]]
        errors = _errors(point)
        if errors is not None:
            axes.errorbar(
                point["cost"], point["quality"], yerr=errors, color=colour, linewidth=1, capsize=2, zorder=2
            )
        axes.scatter(
            [point["cost"]],
            [point["quality"]],
            marker=marker,
            s=_SIZES.get(point["kind"], 45.0),
            facecolors=colour if point["enough"] else "none",
            edgecolors=colour,
            zorder=3,
            label=None if label in seen else label,
        )
        seen.add(label)
        if point["kind"] == "single":
            axes.annotate(
                _short(point["name"]), (point["cost"], point["quality"]), (6, 5), textcoords="offset points"
            )
    for point in points:
        # What nobody could buy has no price: a line to reach for.
        if point["kind"] == "oracle" and point["cost"] is None and point["quality"] is not None:
            axes.axhline(point["quality"], color=_GREEN, linestyle="--", linewidth=1.2, label="oracle")
    edge = best_of(placed)
    if len(edge) > 1:
        axes.plot(
            [p["cost"] for p in edge], [p["quality"] for p in edge], color=_GREY, linestyle=":", zorder=1
        )
    axes.set_xlabel("mean cost of a request, USD")
    axes.set_ylabel("mean reward")
    axes.margins(0.12)
    axes.legend(loc="best", fontsize=9)


def best_of(points: Sequence[Json]) -> list[Json]:
    """Return those of *points* that no other beats in cost and quality, cheapest first."""
    ordered = sorted(points, key=lambda point: (point["cost"], -point["quality"]))
    kept: list[Json] = []
    for point in ordered:
        if not kept or point["quality"] > kept[-1]["quality"]:
            kept.append(point)
    return kept


def _column(axes: Axes, points: Sequence[Json]) -> None:
    shown = [point for point in points if point["quality"] is not None][::-1]
    for row, point in enumerate(shown):
        marker, colour, _ = _KINDS[point["kind"]]
        errors = _errors(point)
        if errors is not None:
            axes.errorbar(point["quality"], row, xerr=errors, color=colour, linewidth=1.2, capsize=2)
        face = colour if point["enough"] else "none"
        axes.scatter([point["quality"]], [row], marker=marker, s=60, facecolors=face, edgecolors=colour)
    axes.set_yticks(range(len(shown)), [_short(point["name"]) for point in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("mean reward (no cost is known)")


def _errors(point: Json) -> list[list[float]] | None:
    low, high, value = point["low"], point["high"], point["quality"]
    if low is None or high is None:
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "\u2026"


def forest(rows: Sequence[Json]) -> str:
    """Return the differences of all estimators, one line each, the default one in colour."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        shown = [row for row in rows if row["value"] is not None][::-1]
        for place, row in enumerate(shown):
            colour = _ORANGE if row["default"] else _GREY
            if row["low"] is not None and row["high"] is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
            axes.scatter([row["value"]], [place], color=colour, s=46, zorder=3)
        axes.axvline(0.0, color=_INK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel("target minus logging policy, mean reward")

    return drawn("forest", 0.9 + 0.32 * max(len(rows), 1), draw)


def weights(found: Json) -> str:
    """Return the share of rows whose weight is at least so much."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        points = [point for point in found["tail"] if point[0] > 0.0]
        axes.step([w for w, _ in points], [share for _, share in points], where="post", color=_BLUE)
        axes.fill_between(
            [w for w, _ in points], [share for _, share in points], step="post", color=_BLUE, alpha=0.15
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.axvline(1.0, color=_INK, linewidth=0.8, linestyle="--")
        plain = "{x:g}".format
        axes.xaxis.set_major_formatter(lambda x, _: plain(x=x))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.4g}")
        axes.set_xlabel("weight: target probability / logged propensity")
        axes.set_ylabel("share of rows with that or more")

    return drawn("weights", 3.1, draw)


def reliability(found: Json) -> str:
    """Return predicted against observed rewards and, where known, stated propensities against choices."""
    panels = [(name, found[name]) for name in ("rewards", "propensities") if found[name]]

    def draw(figure: Figure) -> None:
        titles = {"rewards": ("predicted reward", "observed"), "propensities": ("stated propensity", "taken")}
        for number, (name, bins) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), number)
            _diagonal(axes, bins)
            axes.set_xlabel(titles[name][0])
            axes.set_ylabel(titles[name][1])

    return drawn("reliability", 3.0, draw)


def _diagonal(axes: Axes, bins: Sequence[Json]) -> None:
    ends = [row[key] for row in bins for key in ("predicted", "observed")]
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=_INK, linewidth=0.8, linestyle="--")
    axes.errorbar(
        [row["predicted"] for row in bins],
        [row["observed"] for row in bins],
        yerr=[row["half"] for row in bins],
        fmt="o",
        color=_BLUE,
        markersize=4,
        linewidth=1,
        capsize=2,
    )


def flow(rows: Sequence[Json]) -> str:
    """Return bands from the models that were chosen to those that would be, as wide as they are frequent."""
    names = sorted({row["from"] for row in rows} | {row["to"] for row in rows})
    total = sum(row["count"] for row in rows) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axis("off")
        left = _stacked(rows, "from", total)
        right = _stacked(rows, "to", total)
        colours = dict(zip(names, _palette(len(names)), strict=True))
        inner_left, inner_right = dict(left), dict(right)
        for row in sorted(rows, key=lambda row: (row["from"], row["to"])):
            height = row["count"] / total
            begin, end = inner_left[row["from"]], inner_right[row["to"]]
            inner_left[row["from"]] = begin - height
            inner_right[row["to"]] = end - height
            _band(axes, (begin, end), height, colours[row["from"]])
        _ends(axes, left, rows, ("from", 0.0), total)
        _ends(axes, right, rows, ("to", 1.0), total)
        axes.set_xlim(-0.42, 1.42)
        axes.set_ylim(min(_lowest(left, rows, "from"), _lowest(right, rows, "to")) - 0.03, 1.03)

    deepest = max(len({row[side] for row in rows}) for side in ("from", "to")) if rows else 1
    return drawn("flow", 1.6 + 0.5 * deepest, draw)


_GAP = 0.14
"""Between blocks, in shares: two lines of text find room beside the smallest."""


def _stacked(rows: Sequence[Json], side: str, total: float) -> dict[str, float]:
    """Return the upper end of each name's block, the largest first."""
    sums: dict[str, float] = {}
    for row in rows:
        sums[row[side]] = sums.get(row[side], 0.0) + row["count"]
    top, found = 1.0, {}
    for name, count in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
        found[name] = top
        top -= count / total + _GAP
    return found


def _lowest(tops: Mapping[str, float], rows: Sequence[Json], side: str) -> float:
    """Return the lower end of the lowest block."""
    total = sum(row["count"] for row in rows) or 1.0
    counts = {name: sum(row["count"] for row in rows if row[side] == name) for name in tops}
    return min((top - counts[name] / total for name, top in tops.items()), default=0.0)


def _band(axes: Axes, ends: tuple[float, float], height: float, colour: str) -> None:
    begin, end = ends
    x0, x1, middle = 0.03, 0.97, 0.5
    corners = [(x0, begin), (middle, begin), (middle, end), (x1, end), (x1, end - height)]
    corners += [(middle, end - height), (middle, begin - height), (x0, begin - height), (x0, begin)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, alpha=0.55, linewidth=0))


def _ends(
    axes: Axes, tops: Mapping[str, float], rows: Sequence[Json], side: tuple[str, float], total: float
) -> None:
    key, x = side
    for name, top in tops.items():
        count = sum(row["count"] for row in rows if row[key] == name)
        height = count / total
        axes.plot([x, x], [top, top - height], color=_INK, linewidth=4, solid_capstyle="butt")
        label = f"{_short(name, 20)}\n{count:,.0f} ({height:.1%})"
        left = x < 0.5  # noqa: PLR2004 - the middle
        axes.text(
            x - 0.04 if left else x + 0.04,
            top - height / 2,
            label,
            ha="right" if left else "left",
            va="center",
            fontsize=9,
        )


def _palette(count: int) -> list[str]:
    base = [_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY, "#c2547a", "#7a8b2d", "#3aa6b9"]
    return [base[index % len(base)] for index in range(count)]
