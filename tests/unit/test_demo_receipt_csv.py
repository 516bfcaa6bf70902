"""Receipts: every line once, the sums right, no cell a formula, never half a file."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from billing.embedded.demo.receipt_csv import COLUMNS, UsageRow, safe, write_receipt

ROW = UsageRow(
    run_id="01978a3e-0000-7000-8000-000000000001",
    line=0,
    client_id="acme",
    correlation_id="task-1",
    task="worker_tasks.capture.capture_page",
    sku="page-capture",
    quantity=1,
    price_version=4,
    credits=45,
    grants={12: 30, 15: 15},
    occurred_at=datetime(2026, 11, 21, 9, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1))),
)


def _read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_given_rows_when_written_then_every_line_is_there_and_the_sum_is_right(tmp_path: Path) -> None:
    path = tmp_path / "new" / "receipt.csv"
    receipt = write_receipt(path, (dataclasses.replace(ROW, line=number, credits=number) for number in range(1_000)))
    assert (receipt.lines, receipt.credits) == (1_000, sum(range(1_000)))
    header, *rows = _read(path)
    assert tuple(header) == COLUMNS
    assert [row[1] for row in rows] == [str(number) for number in range(1_000)]


def test_given_a_row_when_written_then_times_are_utc_and_grants_say_who_paid(tmp_path: Path) -> None:
    write_receipt(tmp_path / "receipt.csv", [ROW])
    _, row = _read(tmp_path / "receipt.csv")
    assert row[-2:] == ["12:30 15:15", "2026-11-21T08:00:00.250Z"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_given_text_like_a_formula_when_written_then_a_spreadsheet_takes_it_for_text(tmp_path: Path, text: str) -> None:
    write_receipt(tmp_path / "receipt.csv", [dataclasses.replace(ROW, correlation_id=text)])
    _, row = _read(tmp_path / "receipt.csv")
    assert row[2] == f"'{text}"
    assert safe("page-capture") == "page-capture"


def test_given_rows_that_break_off_when_written_then_the_older_receipt_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "receipt.csv"
    write_receipt(path, [ROW])
    before = path.read_bytes()

    def broken() -> Iterator[UsageRow]:
        yield ROW
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_receipt(path, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_given_no_usage_when_written_then_the_receipt_has_only_its_header(tmp_path: Path) -> None:
    assert write_receipt(tmp_path / "receipt.csv", []).credits == 0
    assert len(_read(tmp_path / "receipt.csv")) == 1
