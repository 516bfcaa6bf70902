"""The billing pages in a real browser, before a real fleet: what they say changes with the books, on any screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import Browser
from tests.fleet.harness import Fleet
from tests.integration.billing_pages import HOSTILE, addresses, increment, park, refuse
from tests.integration.test_receipt_in_browser import _BARS, _TEXTS, contrast, luminance, roles
from tests.integration.watching import QUEUE, Watched, flower_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LONG = "l" * 128
_SETTLED = "document.getElementById('billing-status').dataset.state"
_STATUS = "document.getElementById('billing-status').innerText.trim()"
_LIVE = "document.getElementById('billing-live').innerText"
_CARD = """[...document.querySelectorAll(".metric-card")].filter(e => e.innerText.startsWith("{}"))
    .map(e => e.querySelector(".metric-value").innerText)[0]"""


@pytest.fixture(scope="module")
def watched(running_fleet: Fleet) -> Iterator[Watched]:
    """Start a worker with `-E` and a Flower, with something in every list, names and sums as long as they may be."""
    fleet = running_fleet
    with flower_of(fleet, "flower") as http:
        fleet.worker("watched", options=("-E", "-Q", QUEUE))
        watched = Watched(fleet=fleet, http=http)
        for client in (LONG, HOSTILE):
            fleet.client(client, 2**53 - 1)
            park(fleet.settings, client, b"")
            increment(fleet.settings, client, "quarantined", 10**15 - 1)
            watched.send("ok", client)
            # By the other worker: who waits for ever leaves no room for others.
            fleet.send("gated", client, "never")
        refuse(fleet.settings, b"body", "reason" * 60)
        fleet.wait_for_rows(2)
        wait_until(lambda: fleet.holds(LONG) and fleet.holds(HOSTILE), "both hold")
        wait_until(lambda: "findings" in http.get("/billing").text, "the fleet has been read")
        yield watched
        (fleet.directory / "never").touch()


def pages(client_id: str) -> list[str]:
    """Return the address of every page, that of a client with this one's name."""
    quoted = "".join(f"%{byte:02x}" for byte in client_id.encode())
    return [
        f"/billing/client?id={quoted}" if address.startswith("/billing/client?") else address
        for address in addresses()
        if "static" not in address
    ]


def opened(browser: Browser, watched: Watched, path: str) -> None:
    browser.open(str(watched.http.base_url).rstrip("/") + path)


def card(browser: Browser, name: str) -> Any:
    return browser.value(_CARD.format(name))


def test_it_reads_itself_anew_when_the_books_change(browser: Browser, watched: Watched) -> None:
    """Given an open page, when a task is charged, then its numbers change, and the reader stays in place."""
    client = watched.fleet.client("watching", 1_000)
    browser.screen(1_200)
    opened(browser, watched, f"/billing/client?id={client}")
    assert (card(browser, "Available"), card(browser, "Spent")) == ("1,000", "0")
    assert "Nothing was charged in this time." in browser.value(_LIVE)

    watched.send("ok", client).get(timeout=120)
    wait_until(lambda: card(browser, "Available") == "990", "the page shows what was charged")
    wait_until(lambda: len(browser.value(_BARS)) == 1, "a bar is drawn")
    browser.value("document.getElementById('usage-numbers').open = true")
    browser.value("document.querySelector('#used a').focus()")
    where = browser.value("document.activeElement.href")
    running = watched.send("gated", client, "watching.gate")
    wait_until(lambda: card(browser, "Held") == "10", "the page shows what is held")
    assert running.id in browser.value(_LIVE)

    assert browser.value("document.getElementById('usage-numbers').open") is True
    assert browser.value("document.activeElement.href") == where
    assert browser.value(_SETTLED) == "live"
    (watched.fleet.directory / "watching.gate").touch()
    wait_until(lambda: card(browser, "Spent") == "20", "the page shows that it was charged")
    assert browser.value("performance.getEntriesByType('navigation').length") == 1


def test_what_is_copied_from_it_is_not_taken_away(browser: Browser, watched: Watched) -> None:
    """Given a selection in the page, then nothing is put in its place until it is gone."""
    client = watched.fleet.client("selecting", 1_000)
    opened(browser, watched, f"/billing/client?id={client}")
    browser.value("getSelection().selectAllChildren(document.querySelector('.metric-value'))")
    watched.send("ok", client).get(timeout=120)
    browser.events.clear()
    wait_until(lambda: asked(browser) >= 2, "it was read anew")
    assert card(browser, "Available") == "1,000"

    browser.value("getSelection().removeAllRanges()")
    wait_until(lambda: card(browser, "Available") == "990", "it is shown")


def asked(browser: Browser) -> int:
    """Return how many answers have come for what the page asked by itself."""
    browser.value("1")  # events are read with an answer
    return sum(event["method"] == "Network.loadingFinished" for event in browser.events)


def test_a_tab_that_nobody_sees_asks_nothing_and_says_so(browser: Browser, watched: Watched) -> None:
    opened(browser, watched, "/billing/holds")
    browser.value(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => window.unseen});"
        "window.unseen = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    assert browser.value(_STATUS).startswith("Paused: nobody looks. What is shown is of ")
    browser.events.clear()
    assert browser.value("new Promise(r => setTimeout(() => r(1), 6000))") == 1
    assert [e for e in browser.events if e["method"] == "Network.requestWillBeSent"] == []

    browser.value("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: browser.value(_SETTLED) == "live", "it reads again")


def test_a_flower_that_is_gone_is_said_and_the_numbers_are_called_old(browser: Browser, running_fleet: Fleet) -> None:
    running_fleet.client("left", 70)
    with flower_of(running_fleet, "leaving") as http:
        opened(browser, Watched(fleet=running_fleet, http=http), "/billing/client?id=left")
        assert card(browser, "Available") == "70"
    wait_until(lambda: browser.value(_SETTLED) == "error", "it is noticed")
    assert browser.value(_STATUS).startswith("Flower does not answer. What is shown is of ")
    assert card(browser, "Available") == "70"


def test_a_search_is_made_with_the_keyboard_alone(browser: Browser, watched: Watched) -> None:
    for name in ("keys-b", "keys-a", "other"):
        watched.fleet.client(name, 5)
    opened(browser, watched, "/billing/clients")
    browser.value("document.getElementById('billing-q').focus()")
    browser.call("Input.insertText", text="keys-")
    for kind in ("rawKeyDown", "char", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    wait_until(lambda: "q=keys-" in browser.value("location.href"), "it is searched")
    wait_until(lambda: browser.value("document.readyState") == "complete", "the answer is there")
    names = browser.value("[...document.querySelectorAll('#clients tbody th')].map(e => e.innerText)")
    assert sorted(names) == ["keys-a", "keys-b"]
    assert browser.value("document.getElementById('billing-q').value") == "keys-"
    ring = browser.value(
        "(e => { e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle })"
        "(document.querySelector('#clients a'))"
    )
    assert ring == "solid"


def test_a_tasks_page_in_flower_tells_its_story_when_it_is_read(browser: Browser, watched: Watched) -> None:
    client = watched.fleet.client("storied", 1_000)
    task_id = watched.send("ok", client).id
    watched.wait_for(task_id, "charged")
    watched.fleet.wait_for_rows(1, client)

    opened(browser, watched, f"/task/{task_id}")

    wait_until(lambda: "harged 10 credits" in browser.value(_LIVE), "the story is read")
    steps = browser.value("[...document.querySelectorAll('.billing-steps strong')].map(e => e.innerText)")
    assert {"submitted", "settled", "logged"} <= set(steps)
    link = browser.value("[...document.querySelectorAll('.app-nav a')].map(e => [e.innerText, e.pathname])")
    assert ["Billing", "/billing"] in link


def test_no_page_says_anything_to_the_console_or_asks_elsewhere(browser: Browser, watched: Watched) -> None:
    """Given a name that is markup, then nothing of it runs: no policy is broken, no script fails, no dialog opens."""
    browser.screen(1_200)
    own = str(watched.http.base_url)
    for path in (*pages(HOSTILE), f"/task/{next(iter(watched.listed()))}"):
        opened(browser, watched, path)
        browser.events.clear()
        wait_until(lambda: asked(browser) >= 1, "it was read anew")
        said = [
            event
            for event in browser.events
            if event["method"]
            in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        ]
        assert said == [], path
        urls = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
        assert [url for url in urls if not url.startswith(own) and not url.startswith("data:")] == []
        assert browser.value("document.querySelectorAll('#billing-live img').length") == 0


@pytest.mark.parametrize("width", [320, 360, 768, 1_200])
def test_no_width_makes_a_page_scroll_sideways(browser: Browser, watched: Watched, width: int) -> None:
    """Given names, sums and reasons as long as they may be, then each page is as wide as the screen."""
    browser.screen(width)
    wide = {}
    for path in (*pages(LONG), f"/billing/clients?q={LONG}"):
        opened(browser, watched, path)
        found = browser.value("[document.documentElement.scrollWidth, window.innerWidth]")
        if found != [width, width]:
            wide[path] = found
    assert wide == {}


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_in_light_and_dark(browser: Browser, watched: Watched, dark: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Given Flower's own light and dark, then texts have a contrast of 4.5 at least, and bars one of 3 (WCAG)."""
    browser.screen(1_200, dark=dark)
    for path in pages(HOSTILE):
        opened(browser, watched, path)
        assert browser.value("document.documentElement.dataset.bsTheme") == ("dark" if dark else "light")
        browser.value("document.querySelectorAll('details').forEach(e => { e.open = true })")
        pairs = {tuple(pair) for pair in browser.value(_TEXTS.replace('"body *"', '".billing-page *"'))}
        assert len(pairs) >= 2
        assert {pair: contrast(*pair) for pair in pairs if contrast(*pair) < 4.5} == {}, path
        surface = browser.value("getComputedStyle(document.querySelector('.refresh-status')).backgroundColor")
        assert (luminance(surface) < 0.1) is dark
        assert all(contrast(fill, surface) >= 3 for *_, fill in browser.value(_BARS))


def test_it_can_be_read_aloud(browser: Browser, watched: Watched) -> None:
    """Headings follow each other, the chart has words, tables are tables with headers, the live part has a status."""
    browser.screen(1_200)
    opened(browser, watched, next(path for path in pages(HOSTILE) if path.startswith("/billing/client?")))
    found = roles(browser)
    assert [(name, level) for role, name, level in found if role == "heading"] == [
        (HOSTILE, 1), ("Usage, 24 h", 2), ("Holds", 2), ("Grants", 2), ("Last usage", 2), ("Parked tasks", 2)
    ]  # fmt: skip
    (chart,) = [name for role, name, _ in found if role == "image" and name.startswith("Bar chart")]
    assert chart.startswith("Bar chart of credits per hour, ")
    assert {"main", "table", "row", "status"} <= {role for role, _, _ in found}
    assert {"Billing pages", "Time of the chart"} <= {name for role, name, _ in found if role == "navigation"}
    assert browser.value("[...document.querySelectorAll('.billing-page th')].every(e => e.scope)") is True
    current = browser.value("[...document.querySelectorAll('.billing-tabs [aria-current=page]')].map(e => e.innerText)")
    assert current == ["Clients"]
