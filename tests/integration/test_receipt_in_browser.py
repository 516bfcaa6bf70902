"""The HTML receipt in a real browser: on a phone, on paper, in the dark, and as it is read aloud."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from billing.admin.receipt_line import ReceiptLine
from billing.receipts.forms import FORMS
from billing.receipts.summary import Tally
from tests.browser import Browser
from tests.receipts import HEAD, LINE, month

pytestmark = pytest.mark.integration

#: Names as long as they may be, and sums as large as they get.
LONG = dataclasses.replace(
    LINE,
    task="worker_tasks." + "capture" * 30,
    correlation_id="c" * 200,
    sku="s" * 64,
    unit="unit" * 10,
    credits=2**53 - 1,
    quantity=2**53 - 1,
    grants={2**40: 2**52, 2**41: 2**52 - 1},
    reported=(),
)

#: For each text that is seen, its colour and the first background behind it.
_TEXTS = """[...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && [...e.childNodes]
    .some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    let behind = e;
    while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [getComputedStyle(e).color, getComputedStyle(behind || document.documentElement).backgroundColor];
})"""
_BARS = """[...document.querySelectorAll("svg rect")].map(e => {
    const r = e.getBoundingClientRect();
    return [r.left + scrollX, r.top + scrollY, r.width, r.height, getComputedStyle(e).fill];
})"""
#: A picture as the browser itself reads it: the colours at some places.
_COLOURS = """(async () => {{
    const bytes = Uint8Array.from(atob("{png}"), c => c.charCodeAt(0));
    const picture = await createImageBitmap(new Blob([bytes], {{type: "image/png"}}));
    const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
    canvas.drawImage(picture, 0, 0);
    return {places}.map(([x, y]) => [...canvas.getImageData(x, y, 1, 1).data].slice(0, 3));
}})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a receipt of eight days."""
    return written(tmp_path_factory.mktemp("receipt") / "receipt.html", month(days=8, most=7))


def written(path: Path, lines: Sequence[ReceiptLine], **changes: Any) -> Path:
    """Write a receipt."""
    head = dataclasses.replace(HEAD, **changes)
    path.write_text("".join(FORMS["html"](head, lines, Tally(), io.StringIO(newline=""))), "utf-8")
    return path


def rgb(colour: str) -> list[int]:
    """Read a colour as the browser writes it."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found is not None, colour
    return [int(part) for part in found.groups()]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [part / 255 for part in rgb(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def roles(browser: Browser) -> list[tuple[str, str, Any]]:
    """Return the page in the order in which it is read aloud: role, name and level of each node that is not ignored."""
    nodes = {node["nodeId"]: node for node in browser.call("Accessibility.getFullAXTree")["nodes"]}
    ordered, ahead = [], [next(iter(nodes))]
    while ahead:
        ordered.append(nodes[ahead.pop()])
        ahead += reversed(ordered[-1].get("childIds", []))
    return [
        (
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            next((p["value"]["value"] for p in node.get("properties", []) if p["name"] == "level"), None),
        )
        for node in ordered
        if not node["ignored"]
    ]


def test_it_asks_for_nothing_and_says_nothing(browser: Browser, page: Path) -> None:
    """Given a receipt, when it is opened, then nothing but the file is read, and the console stays empty."""
    browser.screen(1100)
    browser.open(page)
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked == [page.as_uri()]
    said = [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")]
    assert said == []
    # A script that gets in nevertheless does not run, and what it would load is not loaded.
    assert browser.value("document.querySelector('meta[http-equiv=Content-Security-Policy]').content").startswith(
        "default-src 'none'"
    )


@pytest.mark.parametrize("width", [320, 360, 768, 1100])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, tmp_path: Path, width: int) -> None:
    """Given the longest names and the largest sums, then the page is as wide as the screen: a table scrolls within."""
    page = written(tmp_path / "long.html", [LONG, *month(days=2, most=3)], client_id="c" * 128, root_id="r" * 200)
    browser.screen(width)
    browser.open(page)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("document.body.scrollWidth") <= width
    assert browser.value("window.innerWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(browser: Browser, page: Path, dark: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Given either scheme, then every text has a contrast of 4.5 at least, and every bar one of 3 (WCAG 2 AA)."""
    browser.screen(1100, dark=dark)
    browser.open(page)
    pairs = {tuple(pair) for pair in browser.value(_TEXTS)}
    assert len(pairs) >= 2
    assert {pair: contrast(*pair) for pair in pairs if contrast(*pair) < 4.5} == {}
    (paper,) = {behind for _, behind in pairs}
    assert (luminance(paper) < 0.1) is dark
    assert all(contrast(fill, paper) >= 3 for *_, fill in browser.value(_BARS))


@pytest.mark.parametrize("width", [1100, 360])
def test_it_can_be_read_aloud(browser: Browser, page: Path, width: int) -> None:
    """Given a receipt, then headings follow each other, charts have words, and tables are tables, also on a phone."""
    browser.screen(width)
    browser.open(page)
    found = roles(browser)
    assert [(name, level) for role, name, level in found if role == "heading"] == [
        ("acme", 1), ("Usage", 2), ("Subtotals", 2), ("Lines", 2)
    ]  # fmt: skip
    (chart,) = [name for role, name, _ in found if role == "image"]
    assert chart.startswith("Bar chart of credits per day, 1 November 2026 to 30 November 2026. Most: ")
    assert {"main", "table", "row", "rowheader"} <= {role for role, _, _ in found}
    tables = [name for role, name, _ in found if role == "table"]
    assert tables == ["Per SKU", "Who paid", "Reported to Stripe", "Per day", "Every line"]
    headers = [name for role, name, _ in found if role == "columnheader"]
    # On a phone each line is a card, whose cells say what they are.
    assert headers.count("Credits") == (5 if width > 800 else 4)
    assert browser.value("[...document.querySelectorAll('th')].every(e => e.scope)") is True
    assert browser.value("document.documentElement.lang") == "en"


def test_the_chart_has_a_bar_for_each_day_and_each_sku(browser: Browser, page: Path) -> None:
    """Given the sums of the lines, then as many bars are drawn, as long as they say, in their colour."""
    browser.screen(1100)
    browser.open(page)
    tally = Tally()
    for line in month(days=8, most=7):
        tally.add(line)
    days, skus = tally.summary().by_day, tally.summary().by_sku
    bars = browser.value(_BARS)
    assert len(bars) == len(days) + len(skus) == 9 + 3
    titles = browser.value("[...document.querySelectorAll('svg rect title')].map(e => e.textContent)")
    assert titles == [f"{day.day.day} November 2026: {day.credits:,} credits" for day in days]
    heights = [height for _, _, _, height, _ in bars[: len(days)]]
    ordered = sorted(range(8), key=lambda place: days[place].credits)
    assert [heights[place] for place in ordered] == sorted(heights[:8])

    high = browser.value("document.documentElement.scrollHeight")
    picture = base64.b64encode(browser.picture(x=0, y=0, width=1100, height=min(high, 900))).decode()
    inside = [[int(x + width / 2), int(y + height / 2)] for x, y, width, height, _ in bars]
    above = [[int(x + width / 2), int(y) - 4] for x, y, width, height, _ in bars[:8] if height < max(heights)]
    colours = browser.value(_COLOURS.format(png=picture, places=inside + above))
    assert colours[: len(bars)] == [rgb(fill) for *_, fill in bars]
    assert {tuple(colour) for colour in colours[len(bars) :]} == {(255, 255, 255)}


def test_on_paper_headers_are_repeated_and_no_row_is_cut(browser: Browser, page: Path) -> None:
    """Given a dark screen, then paper is white all the same, and has as many sheets as it takes."""
    browser.screen(1100, dark=True, media="print")
    browser.open(page)

    def style(selector: str, name: str) -> Any:
        return browser.value(f"getComputedStyle(document.querySelector({selector!r})).{name}")

    assert style("html", "backgroundColor") == "rgb(255, 255, 255)"
    assert style(".lines thead", "display") == "table-header-group"
    assert style(".lines tbody tr", "breakInside") == "avoid"
    assert style(".lines tr.day", "breakAfter") == "avoid"
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2
