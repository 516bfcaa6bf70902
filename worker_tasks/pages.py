"""Fetches one page over HTTP, within bounds on size, time and redirects.

Guarantee: what is returned is a complete 2xx answer of at most `PAGE_BYTES_MAX` bytes, as the server sent it. It
refuses other schemes than http and https, URLs with a password, and compressed answers (a small one may be huge once
unpacked). It fetches whatever the worker's network reaches: a fleet that takes URLs from strangers belongs behind an
egress proxy, which the usual `HTTPS_PROXY` variables name.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Final
from urllib.parse import urlsplit

import httpx

from worker_tasks.errors import InvalidArgument, PageUnavailable

PAGE_BYTES_MAX: Final = 1_024_000
URL_CHARACTERS_MAX: Final = 2_048
REDIRECTS_MAX: Final = 3
#: Bound on the whole transfer; one read or connect inside it waits at most `STEP_SECONDS`.
FETCH_SECONDS: Final = 20.0
STEP_SECONDS: Final = 10.0


def fetch(url: str) -> bytes:
    """Return the body of a page. Raises `InvalidArgument` for a bad URL and `PageUnavailable` for all else."""
    check_url(url)
    deadline = time.monotonic() + FETCH_SECONDS
    try:
        with _client().stream("GET", url) as answer:
            _check_answer(url, answer)
            return _read(url, answer, deadline)
    except httpx.TooManyRedirects:
        raise PageUnavailable(url, f"redirects more than {REDIRECTS_MAX} times") from None
    except httpx.TimeoutException:
        raise PageUnavailable(url, f"did not answer within {STEP_SECONDS:g} s") from None
    except httpx.InvalidURL as error:
        raise InvalidArgument("url", url, f"is not a URL: {error}") from None
    except httpx.HTTPError as error:
        raise PageUnavailable(url, f"{type(error).__name__}: {error}") from None


def check_url(url: object) -> str:
    """Return a URL that may be fetched, or raise `InvalidArgument`."""
    if not isinstance(url, str) or not 1 <= len(url) <= URL_CHARACTERS_MAX:
        raise InvalidArgument("url", _shortened(url), f"must be text of 1 to {URL_CHARACTERS_MAX} characters")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise InvalidArgument("url", _shortened(url), "is not a URL") from None
    if not usable:
        raise InvalidArgument("url", _shortened(url), "must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        # Arguments are shown by monitors and kept in logs.
        raise InvalidArgument("url", "…@" + parts.netloc.rpartition("@")[2], "must not hold a user or a password")
    return url


def _check_answer(url: str, answer: httpx.Response) -> None:
    if not answer.is_success:
        raise PageUnavailable(url, f"answered {answer.status_code} {answer.reason_phrase}".rstrip())
    encoding = answer.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise PageUnavailable(url, f"is encoded as {encoding}, though identity was asked for")
    declared = answer.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > PAGE_BYTES_MAX:
        raise _too_large(url)


def _read(url: str, answer: httpx.Response, deadline: float) -> bytes:
    """Read the body piece by piece, so that neither its size nor a slow sender is unbounded."""
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece
        if len(body) > PAGE_BYTES_MAX:
            raise _too_large(url)
        if time.monotonic() > deadline:
            raise PageUnavailable(url, f"was not complete within {FETCH_SECONDS:g} s")
    return bytes(body)


def _too_large(url: str) -> PageUnavailable:
    return PageUnavailable(url, f"is larger than {PAGE_BYTES_MAX} bytes")


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004 - the width of a terminal


@functools.cache
def _client() -> httpx.Client:
    """Return the process's one client: making it costs 30 ms, and a fork must not share its connections."""
    return httpx.Client(
        follow_redirects=True,
        max_redirects=REDIRECTS_MAX,
        timeout=httpx.Timeout(STEP_SECONDS),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=15.0),
        headers={"accept-encoding": "identity", "user-agent": "worker-tasks-capture/1"},
    )


os.register_at_fork(after_in_child=_client.cache_clear)
