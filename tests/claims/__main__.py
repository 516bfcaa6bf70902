"""Writes docs/claims.md anew."""

from __future__ import annotations

import tomllib

from tests.claims.page import DATA, PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(tomllib.loads(DATA.read_text("utf-8"))), "utf-8")
