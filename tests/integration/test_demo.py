"""`billing demo`, with a smaller burst: the books hold with a worker process killed, and nothing is left running."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from billing.embedded.demo.run import run; sys.exit(run(burst_captures={burst}))"
#: Far above what it takes: a busy machine is no failure.
LIMIT_SECONDS = 500.0

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2 * LIMIT_SECONDS + 200)]


@contextlib.contextmanager
def _demo(directory: Path, *, burst: int = 40, broker: str = "") -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the demo in a directory of its own; yield it with the file that it prints to."""
    output = directory / "output.txt"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    environ["PYTHONPATH"] = str(ROOT)
    if chosen := broker or os.environ.get("BILLING_EMBEDDED_BROKER", ""):
        environ["BILLING_EMBEDDED_BROKER"] = chosen
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(burst=burst)],
            cwd=directory,
            env=environ,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield demo, output
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.wait()


def test_given_a_killed_worker_process_when_the_demo_ends_then_its_books_hold(tmp_path: Path) -> None:
    """L2, L3, L8: the demo audits itself; Stripe has the log's units; its receipts are what it charged."""
    with _demo(tmp_path) as (demo, output):
        code = demo.wait(LIMIT_SECONDS)
    shown = output.read_text(encoding="utf-8")
    assert code == 0, shown
    assert "SIGKILL to worker process" in shown
    assert "all laws hold; all 536 tasks are accounted for" in shown
    with (tmp_path / ".billing" / "demo" / "receipt-deep-thought.csv").open(encoding="utf-8", newline="") as receipt:
        (row,) = csv.DictReader(receipt)
    assert row["sku"] == "corpus-file-scan"
    assert row["quantity"] == row["credits"]
    assert "receipt-corner-shop.html" in shown
    page = (tmp_path / ".billing" / "demo" / "receipt-corner-shop.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "corner-shop" in page
    (sums,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["all"] and "hold;" not in line]
    assert sums[2] == sums[-1] != "0"  # spent in the buckets, units at Stripe
    for law in ("L2 bucket", "L2 spent", "L3 one charge", "L8 planned", "L8 Stripe", "L3 tasks"):
        assert f"{law} " in shown
    assert max(map(len, shown.split("client ", 1)[1].split("receipt ")[0].splitlines())) <= 80


# That RabbitMQ does not outlive a SIGKILL either is tested in `test_embedded_stack.py`.
@pytest.mark.parametrize(
    ("number", "code", "broker"), [(signal.SIGINT, 130, ""), (signal.SIGKILL, -signal.SIGKILL, "redis")]
)
def test_given_the_demo_at_work_when_it_is_ended_then_nothing_of_it_is_left(
    tmp_path: Path, number: signal.Signals, code: int, broker: str
) -> None:
    # With more to do than is done before the signal comes, on any machine.
    with _demo(tmp_path, burst=1_000, broker=broker) as (demo, output):
        wait_until(
            lambda: demo.poll() is not None or b"all submitted" in output.read_bytes(),
            "the demo submits its tasks",
            timeout_seconds=LIMIT_SECONDS,
        )
        started = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        assert demo.wait(LIMIT_SECONDS) == code, output.read_text(encoding="utf-8")
    assert len(started) > 10
    _, left = psutil.wait_procs(started, timeout=120.0)
    assert left == []
