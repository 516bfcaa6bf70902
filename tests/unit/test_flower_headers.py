"""What a billing page tells a browser, however Flower is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from tornado import httputil, web

from billing.observability.flower.billing_page.base import HEADERS
from billing.observability.flower.billing_page.handlers import Static


def test_no_other_site_may_read_a_page_though_flowers_api_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Flower whose API any site may read, then its billing pages are still for nobody else's scripts."""
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    application: Any = web.Application()
    application.options = SimpleNamespace(basic_auth=None, auth=None)
    line = httputil.RequestStartLine("GET", "/billing", "HTTP/1.1")
    given = httputil.HTTPHeaders({"Host": "localhost"})
    request = httputil.HTTPServerRequest(connection=mock.Mock(), start_line=line, headers=given)
    headers = Static(application, request)._headers
    assert not [name for name, _ in headers.get_all() if name.startswith("Access-Control-")]
    assert headers.items() >= HEADERS.items()
