"""The forms of a receipt: every line once, the sums right, and nothing from outside is ever more than text."""

from __future__ import annotations

import csv
import dataclasses
import html
import html.parser
import io
import json
import shlex
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from billing.receipts import as_html
from billing.receipts.as_csv import COLUMNS, safe
from tests.receipts import FREE, LINE, written

HOSTILE = (
    "<script>alert(1)</script>",
    "</table></body>",
    "{{ 7*7 }}{% for x in y %}",
    '"quoted", and; "more"',
    "'single' & &lt;",
    "two\nlines\r\nand a tab\t.",
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m \u202egnp.exe",
    "javascript:alert(1)",
    "\\u0022 \\",
    "é 😀",
)


class Page(html.parser.HTMLParser):
    """Collects what a browser would see: the elements, their attributes, and the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: dict[str, list[str]] = {}
        self._label: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)
        label = dict(attrs).get("data-l")
        if tag == "td":
            self._label = label
            if label:
                self.cells.setdefault(label, []).append("")

    def handle_endtag(self, tag: str) -> None:
        """Check that elements close in their order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect a cell's text."""
        if self._label and "td" in self.open:
            self.cells[self._label][-1] += data


def rows_of(text: str) -> list[dict[str, str]]:
    """Read CSV."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_is_text_in_html(text: str) -> None:
    """Given hostile names everywhere, then the page has the elements of a harmless one, and shows the names."""
    line = dataclasses.replace(LINE, correlation_id=text, task=text, sku=text, unit=text)
    harmless, hostile = Page(written("html", [LINE])), Page(written("html", [line], client_id=text))
    assert hostile.elements == harmless.elements
    assert hostile.open == []
    assert "script" not in hostile.elements
    shown = hostile.cells["Task"][0]
    if text.isprintable():
        assert shown.count(text) == 2
    assert not any(char in written("html", [line], client_id=text) for char in "\x1b\u202e\r")


def test_html_is_one_file_that_asks_for_nothing() -> None:
    """Given a receipt, then no element loads or runs anything, and links lead into the page alone."""
    correction = dataclasses.replace(LINE, corrects=LINE.run_id, corrects_line=0, line=1)
    text = written("html", [LINE, correction])
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.elements)
    names = {name for name, _ in page.attributes}
    assert not {"src", "style", "action", "onclick"} & names
    links = [value for name, value in page.attributes if name == "href"]
    assert links == [f"#{LINE.run_id}/0"]
    assert ("id", f"{LINE.run_id}/0") in page.attributes
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text


def test_a_correction_leads_to_its_line_only_where_that_is_on_the_page() -> None:
    """Given a correction of a line of an earlier month, then it is named, and no link leads nowhere."""
    correction = dataclasses.replace(LINE, line=1, corrects=uuid.UUID(int=7), corrects_line=2)
    page = Page(written("html", [LINE, correction]))
    assert "a" not in page.elements
    assert f"corrects {uuid.UUID(int=7)}/2" in page.cells["Task"][1]


def test_a_page_has_a_bound_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more lines than a page takes, then it shows the first, sums of all, and the command that has all."""
    monkeypatch.setattr(as_html, "LINES_MAX", 3)
    lines = [dataclasses.replace(LINE, line=number) for number in range(5)]
    text = written("html", lines, client_id="a'b", root_id="-flow")
    page = Page(text)
    assert page.cells["Credits"] == ["45"] * 3
    assert "<strong>225</strong> credits" in text
    assert "The first 3 of 5 lines are below; every sum above" in " ".join(text.split())
    command = html.unescape(text.partition("CSV or JSON: <code>")[2].partition("</code>")[0])
    assert shlex.split(command) == [
        "billing", "receipt", "a'b", "--from", "2026-11-01T00:00:00+00:00", "--to", "2026-12-01T00:00:00+00:00",
        "--root=-flow", "--format", "csv",
    ]  # fmt: skip
    assert "are below" not in written("html", lines[:3])


def test_html_shows_lines_and_subtotals() -> None:
    """Given lines, then each cell says what the line does, and the sums stand before the lines."""
    late = dataclasses.replace(FREE, late=True, occurred_at=LINE.occurred_at + timedelta(days=1))
    text = written("html", [LINE, late])
    page = Page(text)
    assert [" ".join(cell.split()) for cell in page.cells["Quantity"]] == ["9 page", "0 KiB"]
    assert [" ".join(cell.split()) for cell in page.cells["Price"]] == ["5 v4", "v4"]
    assert page.cells["Credits"] == ["45", "0"]
    assert page.cells["Paid by"] == ["grant 12: 30, grant 15: 10, debt: 5", ""]
    assert page.cells["Stripe"] == ["#7 confirmed, 5 not yet reported", "nothing to report"]
    assert "late" in page.cells["Task"][1]
    assert "late" not in page.cells["Task"][0]
    assert text.index("<strong>45</strong>") < text.index('class="lines"')
    assert text.index("21 November 2026</th>") < text.index("22 November 2026</th>")
    assert "Nothing was used." in written("html", [])


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_is_one_cell_in_csv(text: str) -> None:
    """Given hostile names, then a reader gets them back as one cell each, behind an apostrophe where needed."""
    (row,) = rows_of(written("csv", [dataclasses.replace(LINE, correlation_id=text, task=text)]))
    assert row["correlation_id"] == row["task"] == safe(text)
    assert safe(text).removeprefix("'") == text.removeprefix("'")
    assert not safe(text).startswith("=")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\ta", "\r1", "\nb", " =1", "\uff1d1", "\xa0@A1"])
def test_text_like_a_formula_is_text_to_a_spreadsheet(text: str) -> None:
    (row,) = rows_of(written("csv", [dataclasses.replace(LINE, correlation_id=text)]))
    assert row["correlation_id"] == f"'{text}"
    for harmless in ("page-capture", "a;b", "a\tb", "a=1; b=2", "x@y"):
        assert safe(harmless) == harmless


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "text", ["a;=1", "a; =1;b", "a\t@A1", "\t=1", "a\n=1", 'a";+1', 'a;"=1;b', "a;\uff1d1", ";-1", "a;\t=1"]
)
def test_a_spreadsheet_with_another_separator_finds_no_formula_either(text: str, separator: str) -> None:
    """In half of the world a spreadsheet opens CSV by semicolons."""
    document = written("csv", [dataclasses.replace(LINE, correlation_id=text, task=text)])

    rows = csv.reader(io.StringIO(document, newline=""), delimiter=separator)
    cells = [cell for row in rows for cell in row]

    assert [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))] == []


def test_csv_has_a_row_for_each_line_and_nothing_else() -> None:
    """Given lines, then the columns are those promised, times are UTC, and grants say who paid."""
    berlin = dataclasses.replace(LINE, occurred_at=LINE.occurred_at.astimezone(timezone(timedelta(hours=1))))
    text = written("csv", [berlin, FREE])
    rows = rows_of(text)
    assert tuple(rows[0]) == COLUMNS
    assert rows[0] == {
        "run_id": str(LINE.run_id), "line": "0", "correlation_id": "task-1",
        "task": "worker_tasks.capture.capture_page", "sku": "page-capture", "quantity": "9", "unit": "page",
        "price_version": "4", "credits_per_unit": "5", "credits": "45", "grants": "12:30 15:10 0:5",
        "occurred_at": "2026-11-21T08:00:00.250Z", "late": "no", "mode": "", "corrects": "",
        "reason": "",
        "increments": "7:confirmed:40", "not_reported": "5",
    }  # fmt: skip
    assert (rows[1]["credits_per_unit"], rows[1]["grants"], rows[1]["increments"]) == ("", "", "")
    assert len(rows) == 2
    assert rows_of(written("csv", [])) == []
    assert len(written("csv", []).splitlines()) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_comes_back_out_of_json(text: str) -> None:
    document = json.loads(written("json", [dataclasses.replace(LINE, correlation_id=text, sku=text)], client_id=text))
    assert document["client_id"] == text
    assert document["lines"][0]["correlation_id"] == text
    assert document["subtotals"]["by_sku"][0]["sku"] == text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_document_with_head_lines_and_subtotals(count: int) -> None:
    document = json.loads(written("json", (dataclasses.replace(LINE, line=number) for number in range(count))))
    assert (document["from"], document["to"]) == ("2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z")
    assert [line["line"] for line in document["lines"]] == list(range(count))
    assert document["subtotals"]["total"] == {"rows": count, "quantity": 9 * count, "credits": 45 * count}


def test_json_says_of_a_line_what_the_history_does() -> None:
    corrected = uuid.uuid4()
    line = dataclasses.replace(LINE, corrects=corrected, corrects_line=3, reason="=1+1 <b>", late=True)
    assert rows_of(written("csv", [line]))[0]["reason"] == "'=1+1 <b>"
    assert f"{corrected}/3: =1+1 &lt;b&gt;</small>" in written("html", [line])
    (found,) = json.loads(written("json", [line]))["lines"]
    assert found["reason"] == "=1+1 <b>"
    assert found["grants"] == [{"grant": 12, "credits": 30}, {"grant": 15, "credits": 10}, {"grant": 0, "credits": 5}]
    assert found["increments"] == [{"increment_id": 7, "state": "confirmed", "credits": 40, "billed": ""}]
    assert (found["not_reported"], found["late"], found["corrects"]) == (5, True, f"{corrected}/3")
    assert found["occurred_at"] == "2026-11-21T08:00:00.250Z"


def test_a_midnight_is_a_day_and_another_instant_has_its_time() -> None:
    text = written("html", [], start=datetime(2026, 11, 1, 7, 30, tzinfo=UTC))
    assert "1 November 2026, 07:30:00</time>" in text
    assert "1 December 2026</time>" in text


def test_given_months_of_which_all_was_returned_then_the_page_has_no_chart_and_all_its_lines() -> None:
    """Given charges that corrections returned on later days, each month's bar is of 0: the page has none."""
    charged = [dataclasses.replace(LINE, occurred_at=datetime(2026, month, 3, tzinfo=UTC)) for month in (1, 6)]
    returned = [
        dataclasses.replace(
            line,
            occurred_at=line.occurred_at + timedelta(days=2),
            credits=-line.credits,
            grants={grant: -part for grant, part in line.grants.items()},
            corrects=line.run_id,
            corrects_line=line.line,
        )
        for line in charged
    ]
    lines = sorted([*charged, *returned], key=lambda line: line.occurred_at)
    span = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2027, 1, 1, tzinfo=UTC)}
    assert len(Page(written("html", lines, **span)).cells["Task"]) == 4
