"""Fetching and keeping a page: bounded in size and redirects, whole or not at all, the same page once."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker_tasks import pages, store
from worker_tasks.errors import InvalidArgument, PageUnavailable, StoreUnavailable

PAGE = b"<h1>worth two credits</h1>" * 40


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, _, number = self.path.strip("/").partition("/")
        if kind == "page":
            self._answer(200, PAGE)
        elif kind == "redirect":
            self._answer(302, b"", location=f"/redirect/{int(number) - 1}" if int(number) > 1 else "/page")
        elif kind == "elsewhere":
            self._answer(302, b"", location="ftp://127.0.0.1/page")
        elif kind == "declared":
            self._answer(200, b"", length=pages.PAGE_BYTES_MAX + 1)
        elif kind == "endless":
            self._answer(200, b"x" * int(number), length=None)
        elif kind == "packed":
            self._answer(200, PAGE, encoding="gzip")
        elif kind == "cut":
            self._answer(200, PAGE, length=2 * len(PAGE))
        else:
            self._answer(404, b"no such page")

    def _answer(
        self, code: int, body: bytes, *, length: int | None = -1, location: str = "", encoding: str = ""
    ) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("content-length", str(len(body) if length < 0 else length))
        if location:
            self.send_header("location", location)
        if encoding:
            self.send_header("content-encoding", encoding)
        self.send_header("connection", "close")
        self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve pages of every kind on loopback, over real HTTP."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    # The process's client keeps no connection of a server that is gone.
    pages._client().close()
    pages._client.cache_clear()


def test_given_a_page_when_it_is_fetched_then_its_bytes_come_back(site: str) -> None:
    assert pages.fetch(f"{site}/page") == PAGE


def test_given_redirects_within_the_bound_when_fetched_then_they_are_followed(site: str) -> None:
    assert pages.fetch(f"{site}/redirect/{pages.REDIRECTS_MAX}") == PAGE


def test_given_the_largest_page_when_fetched_then_it_is_taken_whole(site: str) -> None:
    """L9: the bound itself is still inside."""
    assert len(pages.fetch(f"{site}/endless/{pages.PAGE_BYTES_MAX}")) == pages.PAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "answered 404 Not Found"),
        (f"redirect/{pages.REDIRECTS_MAX + 1}", "redirects more than 3 times"),
        ("elsewhere", "UnsupportedProtocol"),
        ("declared", "is larger than 1024000 bytes"),
        (f"endless/{pages.PAGE_BYTES_MAX + 1}", "is larger than 1024000 bytes"),
        ("packed", "is encoded as gzip"),
        ("cut", "RemoteProtocolError"),
    ],
)
def test_given_a_page_outside_the_bounds_when_fetched_then_the_error_says_which(
    site: str, path: str, reason: str
) -> None:
    """L9: size, redirects and schemes are bounded; half a page is no page."""
    with pytest.raises(PageUnavailable) as raised:
        pages.fetch(f"{site}/{path}")
    assert reason in str(raised.value)
    assert f"{site}/{path}" in str(raised.value)


def test_given_nobody_listening_when_fetched_then_the_error_names_the_url() -> None:
    with pytest.raises(PageUnavailable, match=r"http://127\.0\.0\.1:1/page: ConnectError"):
        pages.fetch("http://127.0.0.1:1/page")


@pytest.mark.parametrize(
    "url",
    ["", "page", "ftp://host/x", "file:///etc/passwd", "http://", "http://[::1", "http://h/" + "x" * 2048, 7, None],
)
def test_given_what_is_no_url_when_fetched_then_it_is_refused_by_name(url: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^url: "):
        pages.fetch(url)  # type: ignore[arg-type]


def test_given_a_url_with_a_password_when_refused_then_the_password_is_not_shown() -> None:
    with pytest.raises(InvalidArgument) as raised:
        pages.fetch("http://user:secret@127.0.0.1/page")
    assert "secret" not in str(raised.value)


def test_given_the_same_page_twice_when_kept_then_there_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "pages"))
    first, digest = store.keep(PAGE)
    second, _ = store.keep(PAGE)
    assert first == second
    assert digest == hashlib.sha256(PAGE).hexdigest()
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [PAGE]


def test_given_a_file_cut_short_when_the_page_is_kept_again_then_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    path, _ = store.keep(PAGE)
    path.write_bytes(PAGE[:10])
    store.keep(PAGE)
    assert path.read_bytes() == PAGE


def test_given_a_store_that_is_a_file_when_a_page_is_kept_then_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "taken"))
    with pytest.raises(StoreUnavailable, match=r"^WORKER_TASKS_STORE: "):
        store.keep(PAGE)
