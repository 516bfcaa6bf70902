"""Makes the pictures of docs/flower.md: the task list, a task, and the billing pages, while `billing demo` works."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import httpx

from tests import browser
from tests.browser import Browser
from tests.documents import DOCS
from tests.integration.watching import wait_for_answer
from tests.waiting import wait_until

#: Width of a screen, and of a telephone's.
WIDTH: Final = 1_200
TELEPHONE: Final = 390
#: The list has eleven columns.
LIST_WIDTH: Final = 1_400
#: No picture is higher than that, nor larger (documentation is to load at once).
HEIGHT_MAX: Final = 2_400
BYTES_MAX: Final = 300_000
#: Whose page is shown: it has granted, held, charged and killed work.
CLIENT: Final = "reader-club"
_FLOWER: Final = re.compile(r"Flower at (http://127\.0\.0\.1:\d+)")


def main() -> None:
    """Run the demo, and take the pictures while it works."""
    if browser.program() is None:
        raise SystemExit("Chromium: not installed (Debian: chromium)")
    with tempfile.TemporaryDirectory() as name, browser.running(Path(name)) as running:
        demo = subprocess.Popen(
            [sys.executable, "-m", "billing.cli.main", "demo"], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert demo.stdout is not None
        address = next(found[1] for line in demo.stdout if (found := _FLOWER.search(line)))
        try:
            with httpx.Client(base_url=address, timeout=60) as http:
                take_all(running, http)
        finally:
            for line in demo.stdout:
                print(line, end="")  # noqa: T201 - it is a command
            demo.wait()


def take_all(running: Browser, http: httpx.Client) -> None:
    """Take each picture once what it is of is there."""
    wait_for_answer(http)
    http.get("/billing")  # the fleet is read from now on
    wait_until(lambda: len(charged(http)) >= 100, "a hundred tasks were charged")
    wait_until(lambda: "findings" in http.get("/billing").text, "the fleet was read")
    rows = "[...document.querySelectorAll('tbody tr')].filter(e => e.innerText.includes('charged')).length > 6"
    take(running, http, "/tasks", "flower-tasks.png", width=LIST_WIDTH, height=910, when=rows)
    task_id = next(row["uuid"] for row in charged(http) if "logged" in http.get(f"/billing/task?id={row['uuid']}").text)
    take(running, http, f"/task/{task_id}", "flower-task.png", when="document.querySelector('.billing-steps')")
    take(running, http, f"/billing/client?id={CLIENT}", "flower-client.png", when="document.querySelector('svg rect')")
    # The demo may be too quick for that: it ends when its work is done.
    with contextlib.suppress(AssertionError):
        wait_until(lambda: seen_and_checked(http.get("/billing").text), "all was looked at", timeout_seconds=8)
    take(running, http, "/billing", "flower-billing.png")
    take(running, http, "/billing", "flower-billing-telephone.png", width=TELEPHONE, height=1_300)


def seen_and_checked(page: str) -> bool:
    """Whether the fleet's page knows a consumer, and a law that was checked."""
    return "Nobody was seen" not in page and "holds</td>" in page


def charged(http: httpx.Client) -> list[dict[str, str]]:
    """Return the newest tasks that were charged."""
    query = {"draw": "1", "start": "0", "length": "100", "order[0][column]": "0", "columns[0][data]": "received"}
    answer = http.get("/tasks/datatable", params={**query, "order[0][dir]": "desc", "search[value]": "charged"})
    return list(answer.json()["data"])


def take(
    running: Browser, http: httpx.Client, path: str, name: str, *, width: int = WIDTH, height: int = 0, when: str = "1"
) -> None:
    """Take one picture; without a height, of the whole page."""
    running.screen(width)
    running.open(f"{http.base_url}".rstrip("/") + path)
    wait_until(lambda: running.value(f"!!({when})"), f"{path}: {when}")
    high = height or min(HEIGHT_MAX, int(running.value("document.documentElement.scrollHeight")))
    picture = DOCS / name
    picture.write_bytes(running.picture(x=0, y=0, width=width, height=high))
    size = picture.stat().st_size
    if size > BYTES_MAX:
        raise SystemExit(f"{picture}: {size:,} bytes, and {BYTES_MAX:,} are the bound")
    print(f"{picture}: {size // 1_000} kB")  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
