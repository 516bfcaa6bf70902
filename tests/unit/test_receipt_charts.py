"""The bars of a receipt: as many as there are days, as long as their credits, and always to be seen."""

from __future__ import annotations

import dataclasses
import io
import re
from datetime import UTC, datetime, timedelta

import pytest

from billing.receipts import as_html, charts
from billing.receipts.summary import Summary, Tally
from tests.receipts import HEAD, LINE


def summed(*used: tuple[str, datetime, int]) -> Summary:
    """Return the sums of lines of a SKU, a time and credits."""
    tally = Tally()
    for sku, at, credits_ in used:
        tally.add(dataclasses.replace(LINE, sku=sku, occurred_at=at, credits=credits_, grants={1: credits_}))
    return tally.summary()


def on(day: int) -> datetime:
    """Return a moment of November."""
    return datetime(2026, 11, day, 23, 59, 59, 999_999, tzinfo=UTC)


def test_each_day_has_a_bar_as_long_as_its_credits() -> None:
    found = charts.over_time(HEAD, summed(("page", on(1), 50), ("page", on(1), 50), ("kib", on(30), 25)))
    assert found is not None
    assert (found.unit, len(found.bars), found.zero) == ("day", 30, charts.SIZE)
    assert [(bar.place, bar.credits, bar.top, bar.size) for bar in found.bars if bar.size] == [
        (0, 100, 0, 1_000), (29, 25, 750, 250)
    ]  # fmt: skip
    assert found.most.name == "1 November 2026"


def test_what_is_taken_back_stands_below_the_line_and_little_is_seen() -> None:
    found = charts.over_time(HEAD, summed(("page", on(1), 1_000_000), ("page", on(2), -1), ("page", on(3), 1)))
    assert found is not None
    first, second, third = found.bars[:3]
    assert (first.top, first.top + first.size) == (0, found.zero)
    for bar in (second, third):
        assert bar.size >= 10
        assert 0 <= bar.top <= bar.top + bar.size <= charts.SIZE
    assert third.top + third.size == found.zero

    below = charts.over_time(HEAD, summed(("page", on(1), -10)))
    assert below is not None
    assert (below.zero, below.bars[0].top, below.bars[0].size) == (0, 0, 1_000)


@pytest.mark.parametrize(
    ("end", "unit", "bars", "first", "last"),
    [
        ("2027-02-02", "day", 93, "1 November 2026", "1 February 2027"),
        ("2027-02-03", "month", 4, "November 2026", "February 2027"),
        ("2034-08-01", "month", 93, "November 2026", "July 2034"),
        ("2034-08-02", "year", 9, "2026", "2034"),
        ("2136-05-07", "year", 111, "2026", "2136"),
    ],
)
def test_a_long_time_has_bars_of_months_or_years(end: str, unit: str, bars: int, first: str, last: str) -> None:
    """Given usage on the first and the last day of a span, then the bars are bounded, and none is lost."""
    until = datetime.fromisoformat(end).replace(tzinfo=UTC)
    head = dataclasses.replace(HEAD, end=until)
    found = charts.over_time(head, summed(("page", HEAD.start, 1), ("page", until - timedelta(seconds=1), 2)))
    assert found is not None
    assert (found.unit, len(found.bars)) == (unit, bars)
    assert (found.bars[0].name, found.bars[-1].name) == (first, last)
    assert [bar.credits for bar in (found.bars[0], found.bars[-1])] == [1, 2]
    assert sum(bar.credits for bar in found.bars) == 3


def test_a_long_span_shows_the_time_that_was_used() -> None:
    head = dataclasses.replace(HEAD, start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(3000, 1, 1, tzinfo=UTC))
    found = charts.over_time(head, summed(("page", on(3), 1), ("page", on(5), 1)))
    assert found is not None
    assert [bar.name for bar in found.bars] == [f"{day} November 2026" for day in (3, 4, 5)]


def test_skus_stand_in_the_order_of_their_credits_and_are_bounded() -> None:
    found = charts.by_sku(summed(*((f"sku-{number:02}", on(1), number) for number in range(20))))
    assert found is not None
    assert [bar.name for bar in found.bars] == [f"sku-{number:02}" for number in range(19, 7, -1)]
    assert (found.bars[0].size, found.others, found.others_credits) == (charts.SIZE, 8, sum(range(8)))


def test_nothing_has_no_chart() -> None:
    for nothing in (summed(), summed(("page", on(1), 0))):
        assert charts.over_time(HEAD, nothing) is None
        assert charts.by_sku(nothing) is None


def test_a_page_has_the_charts_that_there_are() -> None:
    """Given a charge and its correction within a day, or of one SKU, then the other chart stands alone."""

    def figures(*used: tuple[str, datetime, int]) -> list[str]:
        lines = [
            dataclasses.replace(LINE, line=number, sku=sku, occurred_at=at, credits=credits_, grants={1: credits_})
            for number, (sku, at, credits_) in enumerate(used)
        ]
        text = "".join(as_html.chunks(HEAD, lines, Tally(), io.StringIO()))
        return re.findall(r"<figcaption>(.*)</figcaption>", text)

    assert figures(("page", on(1), 5), ("kib", on(1), -5)) == ["Credits per SKU"]
    assert figures(("page", on(1), 5), ("page", on(2), -5)) == ["Credits per day"]
    assert figures(("page", on(1), 5)) == ["Credits per day", "Credits per SKU"]
    assert figures(("page", on(1), 0)) == []
