"""What the tests of Flower's billing pages share: their addresses, their tables read back, and rows for their lists."""

from __future__ import annotations

import contextlib
import html.parser
import uuid
from typing import Final

import httpx
import psycopg

from billing.core.settings import Settings
from billing.observability.flower.billing_page.handlers import HANDLERS

#: What a name may be at worst: markup, an address of its own, quotes.
HOSTILE: Final = "<img/src=x/onerror=alert(1)>&\"'"
CLIMBING: Final = "../../tasks?x=1#y"

PARKED: Final = """
INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body, content_type,
    content_encoding, headers, properties, exchange, routing_key, times, parked_at, expires_at)
VALUES (%s, %s, 'tasks.<i>wait</i>', %s, 'unit', 700, 20, %s, '', '', '', '', '', '', 1,
    now() - interval '2 hours', now() + interval '5 days')
"""
LETTER: Final = """
INSERT INTO dead_letter (digest, body, reason, queue, received_at)
VALUES (sha256(%s), %s, %s, 'billing.usage.0', now() - interval '3 days')
"""
INCREMENT: Final = """
INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at,
    identifier, state, reason)
VALUES (%s, %s, 'credits', '2026-11-01', '2026-12-01', %s, '2026-11-02', %s, %s, 'no <b>answer</b>')
"""


def addresses() -> list[str]:
    """Return every address of the pages, as a browser would ask for it; those of a client and a task with a name."""
    paths = [handler.regex.pattern.rstrip("$").replace("([a-z.]+)", "billing.js") for handler in HANDLERS]
    assert len(paths) == len(set(paths)) >= 9
    of_a_thing = {"/billing/client": "?id=acme", "/billing/task": "?id=none"}
    return [path + of_a_thing.get(path, "") for path in paths]


def park(settings: Settings, client_id: str, body: bytes) -> str:
    """Park a task whose message has this body; return its id."""
    task_id = str(uuid.uuid4())
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(PARKED, [uuid.uuid4(), client_id, task_id, body])
    return task_id


def refuse(settings: Settings, body: bytes, reason: str) -> None:
    """Keep a dead letter."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(LETTER, [body, body, reason])


def increment(settings: Settings, client_id: str, state: str, units: int) -> None:
    """Plan an increment that came to be in this state."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        name = str(uuid.uuid4())
        connection.execute(INCREMENT, [client_id, f"cus_{name}", units, name, state])


class _Reader(html.parser.HTMLParser):
    """Reads the rows of one table: a cell by its label, the head of a row by ``."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self._table, self._inside = table, False
        self._cell: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "div" and "billing-wide" in (given.get("class") or ""):
            self._inside = given.get("id") == self._table
        if not self._inside:
            return
        if tag == "tr":
            self.rows.append({})
        elif tag in ("td", "th") and given.get("scope") != "col":
            self._cell = given.get("data-label") or ""
            self.rows[-1][self._cell] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = None
        elif tag == "table":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside and self._cell is not None:
            self.rows[-1][self._cell] += data


def rows(page: str, table: str) -> list[dict[str, str]]:
    """Return the rows of a page's table, each cell by what stands above it, in words alone."""
    reader = _Reader(table)
    reader.feed(page)
    return [{name: " ".join(text.split()) for name, text in row.items()} for row in reader.rows if row]


def cards(page: str) -> dict[str, str]:
    """Return the large numbers of a page, by what stands above them."""
    found = {}
    for part in page.split('<p class="metric-label">')[1:]:
        label, _, rest = part.partition("</p>")
        with contextlib.suppress(IndexError):
            found[label] = rest.split('<p class="metric-value">')[1].partition("</p>")[0]
    return found


def page(http: httpx.Client, path: str, **query: str) -> str:
    """Return a page that is there."""
    answer = http.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    return answer.text
