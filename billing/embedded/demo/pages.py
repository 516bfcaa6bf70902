"""Real pages to capture: Python's own documentation server, `pydoc`, on loopback in a guarded child process.

The server renders a module's page each time it is asked, one at a time, which takes from two milliseconds to half a
second: pages are chosen among modules known to be quick. Rendering imports the module, so modules that do something
when imported (`antigravity` opens a browser) are never asked for.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from billing.core.errors import Fatal
from billing.embedded.demo.workload import Site
from billing.embedded.process import Child

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 3.0
PAGES_MIN: Final = 20

#: 2 to 8 ms each, 2 to 20 KiB.
SMALL: Final = frozenset(
    {
        "atexit",
        "base64",
        "bisect",
        "cProfile",
        "cmd",
        "codeop",
        "colorsys",
        "compileall",
        "copy",
        "copyreg",
        "dbm",
        "email",
        "ensurepip",
        "errno",
        "faulthandler",
        "fcntl",
        "filecmp",
        "fileinput",
        "fnmatch",
        "fractions",
        "gc",
        "genericpath",
        "getpass",
        "glob",
        "graphlib",
        "heapq",
        "hmac",
        "html",
        "importlib",
        "keyword",
        "linecache",
        "marshal",
        "mimetypes",
        "mmap",
        "netrc",
        "ntpath",
        "opcode",
        "pickletools",
        "posixpath",
        "pty",
        "pyclbr",
        "quopri",
        "reprlib",
        "rlcompleter",
        "runpy",
        "sched",
        "select",
        "shlex",
        "site",
        "stat",
        "stringprep",
        "sysconfig",
        "tabnanny",
        "textwrap",
        "timeit",
        "token",
        "tomllib",
        "tty",
        "venv",
        "warnings",
        "wsgiref",
        "zipapp",
        "zlib",
    }
)
#: 40 to 100 ms each, more than 100 KiB, and so two or more units of transfer.
LARGE: Final = frozenset({"configparser", "smtplib", "socketserver", "unittest"})

#: The server ends when its standard input does: this one never ends. It is public API of `pydoc` otherwise.
_PROGRAM: Final = (
    "import os, pydoc; os.dup2(os.pipe()[0], 0); pydoc.browse(0, open_browser=False, hostname='127.0.0.1')"
)
_READY: Final = re.compile(r"^Server ready at (http://127\.0\.0\.1:\d+/)\s", re.MULTILINE)
_LINK: Final = re.compile(r'href="(\w+)\.html"')
_POLL_SECONDS: Final = 0.05


class PageServer:
    """The running server; `site` says which of its pages the demo captures."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._child: Child | None = None
        self.site: Site | None = None

    def __enter__(self) -> Self:
        """Start the server and read its index, or raise `Fatal`."""
        # A directory of its own, since `pydoc` offers, and imports, the modules of the directory that it runs in.
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / "pydoc.log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        # -I: neither this project's modules nor the user's are offered.
        command = [sys.executable, "-I", "-u", "-W", "ignore", "-c", _PROGRAM]
        self._child = Child.spawn("pydoc", command, environ=environ, cwd=self._directory, log=log)
        try:
            self.site = _choose(self._wait_for_address(log))
        except BaseException:
            self._child.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        if self._child is not None:
            self._child.stop(STOP_SECONDS)

    def _wait_for_address(self, log: Path) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._child is not None and self._child.running:
            found = _READY.search(log.read_text(encoding="utf-8", errors="replace"))
            if found:
                return found[1]
            time.sleep(_POLL_SECONDS)
        message = f"pydoc: its server did not start within {START_SECONDS:g} s; see {log}"
        raise Fatal(message)


def _choose(address: str) -> Site:
    """Choose from the server's own index, so that every page of the demo is really there."""
    try:
        # No proxy: the server is on loopback, whatever the environment says about the world.
        with httpx.Client(timeout=START_SECONDS, trust_env=False) as client:
            index = client.get(address).raise_for_status().text
    except httpx.HTTPError as error:
        message = f"pydoc: its index at {address} cannot be read: {error}"
        raise Fatal(message) from error
    offered = sorted(set(_LINK.findall(index)))
    small = [f"{address}{module}.html" for module in offered if module in SMALL]
    large = [f"{address}{module}.html" for module in offered if module in LARGE]
    if len(small) < PAGES_MIN:
        message = f"pydoc: its index at {address} offers {len(small)} of the pages wanted, fewer than {PAGES_MIN}"
        raise Fatal(message)
    # Port 9 is "discard": nothing listens there, and no server may be given it by chance.
    return Site(small=small, large=large, missing="http://127.0.0.1:9/gone.html")
