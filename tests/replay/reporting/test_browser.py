"""The report in a browser: quiet, alone, readable, and within its window on a desk and on a telephone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.repository import ROOT
from tests.replay.reporting.browser import WHY_NOT, Page, browsing, chromium
from tests.replay.reporting.worlds import report_of

pytestmark = pytest.mark.skipif(chromium() is None, reason=WHY_NOT)
ARTEFACTS = ROOT / "out" / "report"
HEADINGS = ["Quality", "What would change", "Cost", "Latency", "What this report rests on"]
LAYOUT = """(() => {
  const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
  const all = [...document.querySelectorAll('main *')].filter(seen);
  return {
    headings: [...document.querySelectorAll('h1, h2, h3')].filter(seen).map(e => e.textContent.trim()),
    wide: all.filter(e => !e.closest('svg') && e.getBoundingClientRect().right > window.innerWidth + 1)
      .map(e => e.tagName + ' ' + e.textContent.slice(0, 40)),
    page: document.documentElement.scrollWidth, window: window.innerWidth,
    plots: [...document.querySelectorAll('figure')].map(f => ({
      label: f.querySelector('[role=img]').getAttribute('aria-label'),
      height: f.querySelector('svg').getBoundingClientRect().height,
      inside: f.querySelector('svg').getBBox().width,
      marks: f.querySelectorAll('svg path').length,
      caption: f.querySelector('figcaption').textContent.trim() })),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id),
    data: Object.keys(JSON.parse(document.getElementById('numbers').textContent)),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    axis: getComputedStyle(document.querySelector('svg [style*=currentColor]')).stroke,
  };
})()"""


def light_of(colour: str) -> float:
    """Return the relative luminance of a CSS colour (WCAG 2)."""
    parts = [int(p) / 255 for p in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2)."""
    high, low = sorted((light_of(one), light_of(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


async def looked_at(page: Page, path: Path, width: int, scheme: str = "light") -> dict[str, Any]:
    """Return how the page at *path* lies in a window of *width*."""
    await page.open(path, width, scheme)
    found: dict[str, Any] = await page.evaluate(LAYOUT)
    return found


@pytest.mark.timeout(300)
async def test_the_report_opens_quietly_and_looks_right(tmp_path: Path) -> None:
    """No error, no request, every heading and plot to be seen, and nothing beyond the window."""
    path = report_of(tmp_path)
    async with browsing(tmp_path / "profile") as page:
        for width, scheme in ((1200, "light"), (400, "light"), (1200, "dark")):
            found = await looked_at(page, path, width, scheme)
            await page.picture(ARTEFACTS / f"report-{width}-{scheme}.png")

            assert [h for h in found["headings"] if h in HEADINGS] == HEADINGS
            assert found["wide"] == []
            assert found["page"] <= found["window"]
            assert len(found["plots"]) == 5
            for plot in found["plots"]:
                assert plot["marks"] > 10, plot
                assert plot["height"] > 80, plot
                assert plot["inside"] > 80, plot
                assert len(plot["label"]) > 30, plot
                assert len(plot["caption"]) > 30, plot
            assert contrast(found["ink"], found["paper"]) > 7
            assert contrast(found["axis"], found["paper"]) > 7
            assert len(found["ids"]) == len(set(found["ids"]))
            assert "verdict" in found["data"]

    assert page.complaints == []
    assert {url for url in page.requests if not url.startswith("data:")} == {path.as_uri()}


@pytest.mark.timeout(300)
async def test_a_page_that_is_wrong_is_seen(tmp_path: Path) -> None:
    """The checks above can fail: an error, a picture from elsewhere and a wide block are all found."""
    text = report_of(tmp_path).read_text(encoding="utf-8")
    planted = (
        '<script>console.error("planted")</script><img alt="" src="http://127.0.0.1:9/x.png">'
        '<div style="width:2000px">wide</div></main>'
    )
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</main>", planted), encoding="utf-8")
    async with browsing(tmp_path / "profile") as page:
        found = await looked_at(page, broken, 400)

    assert found["wide"]
    assert found["page"] > found["window"]
    assert page.complaints
    assert "http://127.0.0.1:9/x.png" in page.requests
