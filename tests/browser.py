"""Drives Debian's Chromium, headless, by its DevTools protocol over a pipe: no driver, no port, no library.

One browser for a module of tests: starting one takes seconds. It ends with the pipe, also when the tests are killed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.waiting import LIMIT_SECONDS

NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable")
#: Where the child finds its ends of the pipes: Chromium reads 3 and writes 4.
_WRAPPER: Final = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])"
_FLAGS: Final = (
    "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip


def program() -> str | None:
    """Return where Chromium is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running Chromium with one page. Every wait has a bound."""

    def __init__(self, profile: Path) -> None:
        found = program()
        assert found is not None
        ours, theirs = [], []
        for flip in (False, True):
            read, write = os.pipe()
            # Above 4, so that one end does not take the place of another in the child.
            moved = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
            os.close(read)
            os.close(write)
            theirs.append(moved[flip])
            ours.append(moved[not flip])
        self._to, self._from = ours
        # A browser that runs as root has no sandbox; what it opens are our own files.
        flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={profile}"]
        command = [sys.executable, "-c", _WRAPPER.format(*theirs), found, *flags]
        self._log = (profile / "log").open("wb")
        self._process = subprocess.Popen(
            command, pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        for end in theirs:
            os.close(end)
        self._read, self._number = b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(f"an answer to {method}")
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path | str) -> None:
        """Open a file or an address, and wait until it is loaded; `events` are those since then."""
        self.events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next("the page to be loaded")

    def screen(self, width: int, height: int = 900, *, dark: bool = False, media: str = "") -> None:
        """Have a screen of this size in CSS pixels, or paper (`media="print"`)."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def value(self, expression: str) -> Any:
        """Return what a script's expression comes to; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, **clip: float) -> bytes:
        """Return a PNG of the screen, or of a part of the page."""
        options: dict[str, Any] = {"clip": {"scale": 1, **clip}, "captureBeyondViewport": True} if clip else {}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"])

    def close(self) -> None:
        """End the browser and what it started."""
        for end in (self._to, self._from):
            os.close(end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _next(self, what: str) -> dict[str, Any]:
        """Return the next message; an event is kept."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited {LIMIT_SECONDS} s for {what}"
            data = os.read(self._from, 1 << 20)
            assert data, f"the browser ended while {what} was waited for: {Path(self._log.name).read_text()[-2_000:]}"
            self._read += data
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def running(profile: Path) -> Iterator[Browser]:
    """Within, a browser runs."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
