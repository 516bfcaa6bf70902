"""Makes docs/receipt.png: an invented month as the HTML receipt shows it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Final

from billing.receipts.forms import FORMS
from billing.receipts.summary import Tally
from tests import browser
from tests.documents import DOCS
from tests.receipts import HEAD, month

PICTURE: Final = DOCS / "receipt.png"
#: Width and height of the screen that is shown, in pixels.
SIZE: Final = (1_000, 880)


def main() -> None:
    """Write the picture."""
    if browser.program() is None:
        raise SystemExit("Chromium: not installed (Debian: chromium)")
    with tempfile.TemporaryDirectory() as name, browser.running(Path(name)) as running:
        page = Path(name) / "receipt.html"
        page.write_text("".join(FORMS["html"](HEAD, month(), Tally(), io.StringIO(newline=""))), "utf-8")
        running.screen(*SIZE)
        running.open(page)
        PICTURE.write_bytes(running.picture())
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1_000} kB")  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
