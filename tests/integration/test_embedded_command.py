"""What surrounds the stack: the connection file, the life of a command, the Makefile and its scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from billing.connections import connection_file
from tests.integration.test_embedded_guard import MARK, mark, marked, read
from tests.waiting import wait_until

__all__ = ["mark"]  # the fixture

REPOSITORY = Path(__file__).parents[2]
VARIABLES = {"BILLING_REDIS_URL": "redis://:secret@127.0.0.1:1/0", "BILLING_BROKER_URL": "amqp://u:p@127.0.0.1:2/"}


def test_the_connection_file_is_private_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in `./.billing`, or where the variable says; only `BILLING_*` comes out."""
    monkeypatch.delenv(connection_file.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert connection_file.read() == {}

    path = connection_file.write({**VARIABLES, "PATH": "/evil"})

    assert path.resolve() == tmp_path / ".billing" / "connections.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert connection_file.read() == VARIABLES
    assert list(path.parent.iterdir()) == [path]  # nothing half written is left

    monkeypatch.chdir("/")
    monkeypatch.setenv(connection_file.VARIABLE, str(path.resolve() if path.is_absolute() else tmp_path / path))
    assert connection_file.read() == VARIABLES
    connection_file.remove()
    assert connection_file.read() == {}
    connection_file.remove()


@pytest.mark.parametrize("pid", [2**22 + 1, 0, -1, 2**70, "12", None, 1])
def test_a_file_of_a_stack_that_is_gone_is_ignored(tmp_path: Path, pid: object) -> None:
    """The process must live, and be the one that wrote the file: its id may belong to another by now."""
    path = connection_file.write(VARIABLES, tmp_path / "connections.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"pid": pid}))
    assert connection_file.read(path) == {}

    connection_file.remove(path)
    assert path.exists()  # another stack's file is not ours to remove


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', '{"pid": 1, "variables": []}'])
def test_a_broken_file_is_no_file(tmp_path: Path, text: str) -> None:
    """Reading never raises: a command then says which setting is missing."""
    path = tmp_path / "connections.json"
    path.write_text(text)
    assert connection_file.read(path) == {}


COMMAND = """
import signal, sys, time
from pathlib import Path
from billing.embedded.lifetime import Stopped, clean_stop, end_with_parent
log = Path(sys.argv[1])
with clean_stop():
    end_with_parent()
    try:
        log.write_text("ready ")
        while True:
            time.sleep(0.2)  # and not signal.pause(): a signal just before it would be slept over
    except Stopped as stopped:
        signal.raise_signal(signal.SIGINT)  # impatience: ignored
        log.write_text(f"ready stopped by {stopped.number.name}")
        raise
"""
# As make does: a shell replaces itself with the command, which is then the child of this process.
PARENT = "import subprocess, sys; subprocess.run(['sh', '-c', 'exec \"$0\" \"$@\"', *sys.argv[1:]])"


@pytest.mark.parametrize("victim", ["parent", "command"])
def test_a_command_stops_cleanly_when_its_parent_is_killed(mark: str, tmp_path: Path, victim: str) -> None:
    """SIGKILL of the parent is a SIGTERM for the command, and a second signal does not cut its stop in half."""
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", PARENT, sys.executable, "-c", COMMAND, str(log)]
    with subprocess.Popen(arguments, env={**os.environ, MARK: mark}) as parent:
        wait_until(lambda: b"ready" in read(log), "the command runs")
        if victim == "parent":
            parent.kill()
        else:
            next(process for process in marked(mark) if process.ppid() == parent.pid).send_signal(signal.SIGHUP)

    wait_until(lambda: b"stopped" in read(log), "the command has stopped")
    expected = b"ready stopped by SIGTERM" if victim == "parent" else b"ready stopped by SIGHUP"
    assert read(log) == expected
    wait_until(lambda: marked(mark) == [], "nothing is left")


def test_make_alone_explains_every_target() -> None:
    """`make` without a target is help, and installs nothing."""
    done = subprocess.run(
        ["make", "-C", REPOSITORY, "--no-print-directory"], capture_output=True, text=True, check=True
    )
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    proofs = ["matrix", "endings", "loss", "kills", "crashes", "deliveries", "chaos", "operations", "simulate"]
    proofs += ["sync-simulation", "mutants", "fuzz", "costs", "bench", "reconciler", "postgres15"]
    assert targets == ["help", "demo", "up", "test", "lint", *proofs, "pictures", "docs", "lock", "audit", "clean"]


def test_the_set_up_refuses_an_old_python_with_one_line(tmp_path: Path) -> None:
    """No traceback, nothing half made."""
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = [str(REPOSITORY / "tools" / "install-environment"), str(tmp_path / "venv"), "requirements/celery-5.7.txt"]
    done = subprocess.run(command, env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"PYTHON: {old}: must be a Python of at least version 3.11\n"
    assert not (tmp_path / "venv").exists()


def test_without_a_package_manager_the_broker_s_script_says_what_follows(tmp_path: Path) -> None:
    """It never fails: a laptop without RabbitMQ still has a demo."""
    script = (REPOSITORY / "tools" / "install-servers").read_text().replace("/usr/lib/rabbitmq", "/nowhere")
    for program in ("id", "command", "readlink", "basename"):
        (tmp_path / program).write_text("#!/bin/sh\necho 1000\n")
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", script, "install-servers", "rabbitmq-server"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Not installed: rabbitmq-server")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["tools/install-environment", "tools/install-servers", "tools/lock", ".ci/run"])
def test_the_scripts_are_executable_and_parse(script: str) -> None:
    """A shell would find a typing mistake only on the machine that needs the line."""
    path = REPOSITORY / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
