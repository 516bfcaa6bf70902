"""docs/explain.md: a newcomer types it, and each story is told as the page says."""

from __future__ import annotations

import pytest

from tests.documents import DOCS
from tests.integration.test_stripe_page import newcomer
from tests.newcomer import Newcomer

__all__ = ["newcomer"]

pytestmark = pytest.mark.integration

#: The page stays one that an operator reads in a minute.
LINES_MAX = 90


@pytest.mark.slow
def test_the_page_tells_what_it_says(newcomer: Newcomer) -> None:
    page = DOCS / "explain.md"
    assert len(page.read_text("utf-8").splitlines()) <= LINES_MAX
    newcomer.follow(page)
