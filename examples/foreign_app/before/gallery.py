"""A small gallery, as many Celery apps are: its own settings, queues and base class. It develops and frames pictures.

Pictures are grey PGM files. A customer may order before the picture is uploaded: `develop` retries until it is there.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import celery

INBOX, PRINTS, JOURNAL = Path("inbox"), Path("prints"), Path("journal.log")
WIDTH, HEIGHT = 240, 160


class Config:
    """This app's own settings."""

    broker_url = os.environ["GALLERY_BROKER_URL"]
    result_backend = os.environ["GALLERY_RESULT_URL"]
    task_default_queue = "darkroom"
    task_routes: ClassVar = {"gallery.frame": {"queue": "frames"}}
    broker_connection_retry_on_startup = True


app = celery.Celery("gallery", config_source=Config)


class Noted(celery.Task):  # type: ignore[type-arg]
    """The base of this app's tasks: it keeps a journal of what went wrong."""

    max_retries = 600

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note a retry."""
        self.note(f"{task_id}: tried again: {exc}")

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note a failure."""
        self.note(f"{task_id}: failed: {exc}")

    def note(self, line: str) -> None:
        """Add a line to the journal."""
        with JOURNAL.open("a") as journal:
            journal.write(f"{line}\n")


@app.task(bind=True, base=Noted)
def develop(self: Noted, customer: str, name: str, width: int, height: int) -> str:
    """Bring out the contrast of an uploaded picture: each grey gets the rank that it has among all greys."""
    upload = INBOX / f"{name}.pgm"
    if not upload.exists():
        raise self.retry(countdown=0.5, exc=FileNotFoundError(f"{upload} is not uploaded yet"))
    grey = load(upload, width, height)
    counts = [0] * 256
    for value in grey:
        counts[value] += 1
    ranks, below = [0] * 256, 0
    for value, count in enumerate(counts):
        ranks[value] = 255 * below // len(grey)
        below += count
    return save(PRINTS / customer / f"{name}.pgm", bytes(ranks[value] for value in grey), width)


@app.task(base=Noted)
def frame(path: str, customer: str, factor: int) -> str:
    """Scale a print down, each pixel the mean of a square, and put a white frame around it."""
    grey, width = load(Path(path), WIDTH, HEIGHT), WIDTH
    rows = []
    for top in range(0, HEIGHT, factor):
        row = [
            sum(sum(grey[y * width + left : y * width + left + factor]) for y in range(top, top + factor)) // factor**2
            for left in range(0, width, factor)
        ]
        rows.append(bytes([255, *row, 255]))
    border = bytes([255] * len(rows[0]))
    return save(Path(path).with_suffix(".framed.pgm"), b"".join([border, *rows, border]), len(border))


@app.task(base=Noted)
def describe(path: str) -> str:
    """Say what hangs on the wall. This is free."""
    pixels = Path(path).read_bytes().split(b"\n", 3)[3]
    return f"{path}: {len(pixels)} pixels, mean grey {sum(pixels) // len(pixels)}"


def load(path: Path, width: int, height: int) -> bytes:
    """Read a picture's pixels."""
    pixels = path.read_bytes().split(b"\n", 3)[3]
    if len(pixels) != width * height:
        message = f"{path}: is not {width} by {height}"
        raise ValueError(message)
    return pixels


def save(path: Path, grey: bytes, width: int) -> str:
    """Write a picture, all of it or nothing; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_bytes(b"P5\n%d %d\n255\n" % (width, len(grey) // width) + grey)
    return str(half.replace(path))


def upload(name: str) -> str:
    """Draw a picture where an upload would put it: two waves that meet."""
    seed = sum(name.encode())
    points = ((x / 20, y / 20) for y in range(HEIGHT) for x in range(WIDTH))
    grey = bytes(int(64 * (2 + math.sin(x + seed) + math.sin(math.hypot(x - 6, y - 4) * 2))) % 256 for x, y in points)
    return save(INBOX / f"{name}.pgm", grey, WIDTH)


def order(customer: str, name: str) -> str:
    """Order a framed print: a chain, whose last task is named after the order."""
    steps = develop.s(customer, name, WIDTH, HEIGHT) | frame.s(customer, 8) | describe.s()
    steps.apply_async(task_id=f"{customer}-{name}")
    return f"{customer} has ordered {name}"


def wait(customer: str, name: str) -> str:
    """Wait for an order, and return what hangs on the wall, or why nothing does."""
    return str(app.AsyncResult(f"{customer}-{name}").get(timeout=120, propagate=False))


COMMANDS: dict[str, Callable[..., str]] = {"upload": upload, "order": order, "wait": wait}

if __name__ == "__main__":
    print(COMMANDS[sys.argv[1]](*sys.argv[2:]))
