"""A recording's lines become rows or reasons: none is lost, none is invented, whatever the bytes are."""

from __future__ import annotations

import csv
import gzip
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.credits import CREDITS_MAX
from billing.core.errors import Fatal, InvalidValue
from billing.workload.combined_log import read_combined
from billing.workload.layout import Layout, spread_client
from billing.workload.lines import LINE_BYTES_MAX, Line, read_lines
from billing.workload.recording import Recording, look_at
from billing.workload.rows import Entry, Malformed, Row

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEADER = "client,sku,quantity,time\n"
GOOD = "acme,page,3,2026-11-21T08:00:00Z\n"
APACHE = (
    '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a.png HTTP/1.1" 200 {bytes} '
    '"http://h/" "Mozilla/5.0 (\\"quoted\\")"'
)


def recording(path: Path, content: str | bytes, **layout: object) -> Recording:
    """Write a file and look at it."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return look_at(path, Layout(**layout))  # type: ignore[arg-type]


def entries(path: Path, content: str | bytes, **layout: object) -> list[Entry]:
    """Return what a file's lines become."""
    return list(recording(path, content, **layout).entries(NOW))


def reasons(found: list[Entry]) -> dict[int, str]:
    """Return the malformed lines."""
    return {entry.line: entry.reason for entry in found if isinstance(entry, Malformed)}


@given(st.binary(max_size=2_000))
def test_any_bytes_become_as_many_entries_as_there_are_lines(content: bytes) -> None:
    """No line is lost or invented: an entry per line, numbered from 1, in both formats."""
    lines = [line for line in io.BytesIO(content)]  # noqa: C416 - a list of what iterating yields
    found = list(read_lines(io.BytesIO(content)))
    assert [line.number if isinstance(line, Line) else line.line for line in found] == list(range(1, len(lines) + 1))
    assert len(list(read_combined(found, "web-kib", NOW))) == len(lines)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
            st.one_of(st.integers(-5, 10**17).map(str), st.text("0123456789.-+e ", max_size=6)),
        ),
        max_size=20,
    )
)
def test_rows_and_malformed_lines_add_up_to_the_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    """What is a row says exactly what its line says."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("client", "sku", "quantity"), *rows])
    found = entries(tmp_path_factory.mktemp("any") / "file.csv", text.getvalue())
    assert [entry.line for entry in found] == list(range(2, len(rows) + 2))
    for entry, (client_id, sku, quantity) in zip(found, rows, strict=True):
        if isinstance(entry, Row):
            assert (entry.client_id, entry.sku, entry.quantity) == (client_id, sku, int(quantity))
            assert 0 <= entry.quantity <= CREDITS_MAX


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("acme,page,1.5,", "quantity: '1.5': must be a whole number"),
        ("acme,page,-3,", "quantity: '-3': must be a whole number from 0"),
        ("acme,page,,", "quantity: ''"),
        ("acme,page,1e3,", "quantity: '1e3'"),
        (f"acme,page,{CREDITS_MAX + 1},2026-11-21", f"quantity: {CREDITS_MAX + 1}: must be a whole number"),
        ("acme,page,3,2027-01-01", "time: '2027-01-01T00:00:00+00:00': is in the future"),
        ("acme,page,3,yesterday", "time: 'yesterday': must be a time as"),
        ("two words,page,3,2026-11-21", "client: 'two words': must be 1 to 128 printable"),
        (",page,3,2026-11-21", "client: '': must be"),
        ("acme,Page!,3,2026-11-21", "sku: 'Page!': must be 1 to 64"),
        ("acme,page,3", "fields: 3: must be 4, as the header has"),
        ("acme,page,3,2026-11-21,more", "fields: 5: must be 4"),
        ('acme,page,3,"2026-11-21', "is no line of a CSV file"),
        ("acme," + "x" * (LINE_BYTES_MAX + 10), f"is longer than {LINE_BYTES_MAX:,} bytes"),
        ("acme,\0,3,", "contains a NUL byte"),
        ("", "is empty"),
    ],
)
def test_a_bad_line_is_reported_with_number_and_reason_and_the_others_are_not_lost(
    tmp_path: Path, line: str, reason: str
) -> None:
    found = entries(tmp_path / "file.csv", f"{HEADER}{GOOD}{line}\n{GOOD}", time="time")
    assert [entry.line for entry in found if isinstance(entry, Row)] == [2, 4]
    (bad,) = reasons(found).items()
    assert bad[0] == 3
    assert bad[1].startswith(reason) or reason in bad[1]
    assert len(bad[1]) < 300


def test_bytes_that_are_no_text_are_reported_by_line(tmp_path: Path) -> None:
    found = entries(tmp_path / "file.csv", HEADER.encode() + b"acme,p\xffge,3,\n" + GOOD.encode())
    assert reasons(found) == {2: "is not valid UTF-8 at byte 7"}
    assert len(found) == 2


def test_what_editors_and_other_systems_add_does_no_harm(tmp_path: Path) -> None:
    """A byte order mark, carriage returns, a missing last newline, quoted fields, spaces around a number."""
    content = b'\xef\xbb\xbfclient,sku,quantity\r\n"a,b",page, 7 \r\nacme,page,0'
    found = entries(tmp_path / "file.csv", content)
    assert [(r.client_id, r.quantity) for r in found if isinstance(r, Row)] == [("a,b", 7), ("acme", 0)]


def test_fixed_values_sums_of_columns_and_spread_clients(tmp_path: Path) -> None:
    """Place among the data lines, counted from 0, modulo N: a malformed line keeps its place."""
    content = "A,B\n1,2\nx,2\n3,4\n5,6\n"
    found = entries(tmp_path / "file.csv", content, quantity="A+B", sku="=llm-tokens", spread=3)
    assert [(r.line, r.client_id, r.sku, r.quantity) for r in found if isinstance(r, Row)] == [
        (2, "client-0001", "llm-tokens", 3),
        (4, "client-0003", "llm-tokens", 7),
        (5, "client-0001", "llm-tokens", 11),
    ]
    assert [spread_client(place, 3) for place in range(4)] == [
        "client-0001",
        "client-0002",
        "client-0003",
        "client-0001",
    ]
    fixed = entries(tmp_path / "file.csv", content, quantity="=5", sku="=page", client="=acme")
    assert {(r.client_id, r.sku, r.quantity) for r in fixed if isinstance(r, Row)} == {("acme", "page", 5)}


@pytest.mark.parametrize(("sent", "units"), [("0", 0), ("-", 0), ("1", 1), ("1024", 1), ("1025", 2), ("203023", 199)])
def test_a_web_log_sells_started_kib(tmp_path: Path, sent: str, units: int) -> None:
    (row,) = entries(tmp_path / "access.log", APACHE.format(bytes=sent), format="combined")
    assert row == Row(
        line=1,
        client_id="83.149.9.216",
        sku="web-kib",
        quantity=units,
        at=datetime(2015, 5, 17, 10, 5, 3, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (APACHE.format(bytes="-5"), "quantity: '-5'"),
        (APACHE.format(bytes="1").replace("May", "Mai"), "time: '17/Mai/2015"),
        (APACHE.format(bytes="1").replace("2015", "2115"), "is in the future"),
        (APACHE.format(bytes="1").replace("17/", "32/"), "time: '32/May"),
        (APACHE.format(bytes="1").replace("+0000", "+9900"), "time: "),
        (APACHE.format(bytes="1")[:-1], "is not in the combined log format"),
        (APACHE.format(bytes="1") + " extra", "is not in the combined log format"),
        ("nothing of the kind", "is not in the combined log format"),
    ],
)
def test_a_bad_line_of_a_web_log_says_why(tmp_path: Path, line: str, reason: str) -> None:
    good = APACHE.format(bytes="9")
    found = entries(tmp_path / "access.log", f"{good}\n{line}\n{good}\n", format="combined")
    assert list(reasons(found)) == [2]
    assert reason in reasons(found)[2]
    assert len(found) == 3


@pytest.mark.parametrize("compress", [False, True])
def test_gzip_is_known_by_its_first_bytes(tmp_path: Path, compress: bool) -> None:  # noqa: FBT001 - a parameter
    content = (HEADER + GOOD * 3).encode()
    assert len(entries(tmp_path / "file.csv", gzip.compress(content) if compress else content)) == 3


def test_a_gzip_that_is_cut_off_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    lines = [f"client-{number},page,{number * 7919},2026-11-20\n" for number in range(5_000)]
    whole = gzip.compress((HEADER + "".join(lines)).encode())
    found = entries(tmp_path / "file.csv.gz", whole[: len(whole) // 2])
    rows, (bad,) = found[:-1], found[-1:]
    assert isinstance(bad, Malformed)
    assert "cut off" in bad.reason
    assert bad.line == len(rows) + 2
    assert 1_000 < len(rows) < 4_000
    assert [row.quantity for row in rows if isinstance(row, Row)] == [number * 7919 for number in range(len(rows))]


@pytest.mark.parametrize(
    ("content", "layout", "refused"),
    [
        (b"", {}, "is empty"),
        (gzip.compress(b""), {}, "is empty"),
        (bytes(range(256)) * 40, {}, "is a binary file"),
        (bytes(range(256)) * 40, {"format": "combined"}, "is a binary file"),
        (gzip.compress(HEADER.encode())[:10], {}, "cut off before its first line"),
        (b"\x1f\x8bno gzip at all", {}, "is a damaged gzip file"),
        (b"a,b\n1,2\n", {}, "--client: 'client': is no column of the file; its columns are: a, b"),
        (b"a,b\n1,2\n", {"client": "=x", "sku": "=y", "quantity": "a+c"}, "--quantity: 'c': is no column"),
        (b"a,a\n1,2\n", {"client": "a"}, "is the name of 2 columns"),
        (b"a,b\n1,2\n", {"client": "=two words"}, "--client: 'two words': must be"),
        (b"a,b\n1,2\n", {"client": "=x", "sku": "=Y"}, "--sku: 'Y': must be"),
        (b"a,b\n1,2\n", {"client": "=x", "sku": "=y", "quantity": "=1.5"}, "--quantity: '1.5': must be"),
        (b"a,b\n1,2\n", {"client": "=x", "sku": "=y", "quantity": "a", "time": "=now"}, "--time: '=now': must be"),
        (b"a,b\n1,2\n", {"client": "a", "spread": 5}, "--spread: 5: is for files without clients"),
        (b"x\n", {"format": "combined", "client": "a"}, "--client: 'a': is for CSV"),
        (b"x\n", {"format": "combined", "sku": "page"}, "--sku: 'page': a combined log has no columns"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_whole(
    tmp_path: Path, content: bytes, layout: dict[str, object], refused: str
) -> None:
    """One line that names what is wrong, before anything is read for billing."""
    with pytest.raises(InvalidValue) as error:
        recording(tmp_path / "file", content, **layout)
    assert refused in str(error.value)
    assert "\n" not in str(error.value)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, refused in (
        (tmp_path / "none", "is not there"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "regular file"),
    ):
        with pytest.raises(InvalidValue, match=refused):
            look_at(path, Layout())


def test_a_gzip_with_a_wrong_checksum_is_refused_whole(tmp_path: Path) -> None:
    """None of its rows can be trusted."""
    damaged = bytearray(gzip.compress((HEADER + GOOD * 50).encode()))
    damaged[-8] ^= 1
    with pytest.raises(InvalidValue, match="damaged gzip"):
        entries(tmp_path / "file.csv.gz", bytes(damaged))


def test_a_file_that_changes_meanwhile_is_not_read_on(tmp_path: Path) -> None:
    """Its lines would no longer be those that the digest names."""
    found = recording(tmp_path / "file.csv", HEADER + GOOD)
    (tmp_path / "file.csv").write_text(HEADER + GOOD + GOOD)
    with pytest.raises(Fatal, match="has changed"):
        list(found.entries(NOW))


def test_a_file_that_grows_while_it_is_read_is_not_read_on(tmp_path: Path) -> None:
    """A web server goes on writing: those lines are no part of what was surveyed, and none of them becomes a row."""
    path = tmp_path / "file.csv"
    reading = recording(path, HEADER + GOOD * 5_000).entries(NOW)
    assert isinstance(next(reading), Row)
    with path.open("a") as file:
        file.write("other,call,9,\n")
    with pytest.raises(Fatal, match="has changed since the replay began"):
        next(reading)


def test_an_option_that_says_its_default_is_no_other_workload(tmp_path: Path) -> None:
    """L3: else the same rows would be billed again."""
    path, content = tmp_path / "file.csv", HEADER + GOOD
    said = recording(path, content, client="client", sku="sku", quantity="quantity")
    assert said.digest == recording(path, content).digest
    log = APACHE.format(bytes="1")
    said = recording(path, log, format="combined", sku="=web-kib")
    assert said.digest == recording(path, log, format="combined").digest


def test_a_line_that_is_too_long_is_no_row_whatever_stands_at_the_bound(tmp_path: Path) -> None:
    """A carriage return there is not the line's end; where it is, the line is as long as it may be."""
    start = b"acme,page,1," + b"x" * (LINE_BYTES_MAX - 12)
    found = entries(tmp_path / "file.csv", HEADER.encode() + start + b"\rmore\n" + start + b"\r\n" + GOOD.encode())
    assert [entry.line for entry in found if isinstance(entry, Row)] == [3, 4]
    assert reasons(found) == {2: f"is longer than {LINE_BYTES_MAX:,} bytes"}


def test_a_file_whose_name_is_no_text_has_one(tmp_path: Path) -> None:
    """It is shown, and kept in PostgreSQL."""
    assert recording(tmp_path / os.fsdecode(b"caf\xe9[red].csv"), HEADER + GOOD).name == "caf\\xe9[red].csv"


def test_the_digest_is_of_the_file_and_of_what_decides_on_its_rows(tmp_path: Path) -> None:
    path, content = tmp_path / "file.csv", "client,sku,quantity,q\nacme,page,1,2\n"
    one = recording(path, content).digest
    assert recording(path, content).digest == one
    assert recording(tmp_path / "other.csv", content).digest == one
    assert len({one, recording(path, content, quantity="q").digest, recording(path, content + GOOD).digest}) == 3
