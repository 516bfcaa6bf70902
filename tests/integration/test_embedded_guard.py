"""Nothing outlives its owner: not the owner's SIGKILL, not a guard's, not the child's own end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from billing.embedded.process import Child
from tests.waiting import wait_until

MARK = "BILLING_TEST_MARK"
# A child with a pool process, and a daemon in a session of its own, whose parent is gone.
FAMILY = "(setsid sleep 600 &); sleep 601 & echo ready; wait"


@pytest.fixture
def mark() -> Iterator[str]:
    """Mark the environment of everything that a test starts; fail if any of it is left."""
    value = uuid.uuid4().hex
    yield value
    left = marked(value)
    for process in left:
        process.kill()
    assert not left


def marked(value: str) -> list[psutil.Process]:
    """Every living process that carries the mark, wherever it hangs in the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def family(mark: str, directory: Path, script: str = FAMILY, grace_seconds: float = 4.0) -> Child:
    """Start the shell script below a guard and wait until it says that it is ready."""
    log = directory / "family.log"
    environ = {**os.environ, MARK: mark}
    child = Child.spawn(
        "family", ["sh", "-c", script], environ=environ, cwd=directory, log=log, grace_seconds=grace_seconds
    )
    wait_until(lambda: b"ready" in read(log), "the child is ready")
    return child


def read(log: Path) -> bytes:
    """Read what a log holds so far."""
    return log.read_bytes() if log.exists() else b""


def test_stop_ends_the_child_and_all_that_it_started(mark: str, tmp_path: Path) -> None:
    """The daemon that left the child's session is found too; the exit code is the signal's."""
    child = family(mark, tmp_path)
    # Two halves of the guard, the shell, its job, the daemon.
    wait_until(lambda: len(marked(mark)) == 5, "all five are there")

    assert child.stop(timeout_seconds=120) == 128 + signal.SIGTERM

    assert marked(mark) == []
    assert not child.running


def test_a_signal_reaches_the_child_alone_and_its_exit_code_comes_back(mark: str, tmp_path: Path) -> None:
    """SIGTERM to a Celery worker must be its warm stop, not the end of its pool."""
    script = (
        "trap 'echo stopping; exit 7' TERM; (trap 'echo pool' TERM; sleep 602) & echo ready; while :; do wait; done"
    )
    child = family(mark, tmp_path, script)

    child.signal(signal.SIGTERM)

    assert child.wait(120) == 7
    assert "stopping" in child.last_lines()
    assert "pool" not in child.last_lines()


def test_a_child_that_ignores_the_request_is_killed_when_the_time_is_up(mark: str, tmp_path: Path) -> None:
    """A stop is bounded."""
    child = family(mark, tmp_path, "trap '' TERM; echo ready; while :; do sleep 1; done")

    assert child.stop(timeout_seconds=0.3) == 128 + signal.SIGKILL


def test_kill_ends_the_whole_tree_at_once(mark: str, tmp_path: Path) -> None:
    """`kill` is a power cut."""
    child = family(mark, tmp_path)

    assert child.kill() == 128 + signal.SIGKILL

    assert marked(mark) == []


@pytest.mark.parametrize("half", ["outer", "inner"])
def test_killing_half_a_guard_ends_the_child(mark: str, tmp_path: Path, half: str) -> None:
    """Each half watches the other."""
    child = family(mark, tmp_path, grace_seconds=0.5)
    victim = psutil.Process(child.pid) if half == "outer" else psutil.Process(child.pid).children()[0]

    victim.kill()

    wait_until(lambda: marked(mark) == [], f"nothing is left after the {half} half was killed")
    assert child.wait(120) is not None


def test_when_the_child_is_killed_its_orphans_end_too(mark: str, tmp_path: Path) -> None:
    """A worker's pool does not outlive a SIGKILL of its main process."""
    child = family(mark, tmp_path)

    os.kill(child.child_pid, signal.SIGKILL)

    assert child.wait(120) == 128 + signal.SIGKILL
    assert marked(mark) == []


def test_a_program_that_does_not_exist_is_a_clear_line(mark: str, tmp_path: Path) -> None:
    """The exit code is the shell's for a command that cannot run."""
    environ = {**os.environ, MARK: mark}
    child = Child.spawn("ghost", ["/no/such/program"], environ=environ, cwd=tmp_path, log=tmp_path / "log")

    assert child.wait(120) == 127
    assert child.last_lines() == ["cannot start /no/such/program: No such file or directory"]


OWNER = """
import os, sys, threading, time
from pathlib import Path
from billing.embedded.process import Child

directory, script, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def start():
    command = ["sh", "-c", script]
    Child.spawn("family", command, environ=os.environ, cwd=directory, log=directory / "log", grace_seconds=0.5)
thread = threading.Thread(target=start)  # a thread that ends must not look like an owner that ends
thread.start()
thread.join()
if end == "return":
    sys.exit(0)
while True:
    time.sleep(0.2)  # and not signal.pause(): a signal just before it would be slept over
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT", "return"])
def test_nothing_is_left_however_the_owner_ends(mark: str, tmp_path: Path, end: str) -> None:
    """SIGKILL included, and though the thread that started the child ended long before."""
    command = [sys.executable, "-c", OWNER, str(tmp_path), FAMILY, end]
    owner = subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL)
    try:
        if end != "return":
            wait_until(lambda: b"ready" in read(tmp_path / "log"), "the child is ready")
            wait_until(lambda: len(marked(mark)) == 6, "all six are there")
            owner.send_signal(signal.Signals[end])
        owner.wait(120)
    finally:
        owner.kill()
        owner.wait(120)

    wait_until(lambda: marked(mark) == [], f"nothing is left after {end}")
