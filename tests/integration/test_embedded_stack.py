"""The embedded stack: real servers, loopback only, a password each, data that survive a kill, nothing left behind."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import amqp
import kombu
import psutil
import psycopg
import pytest
import redis

from billing.core.errors import Fatal, InvalidValue
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.stack import BROKER_VARIABLE, Stack
from tests.integration.test_embedded_guard import MARK, mark, marked, read
from tests.waiting import wait_until

__all__ = ["mark"]  # the fixture

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """Run a stack of this test's own, on Redis alone, which starts in a second."""
    with Stack(broker="redis", fast=True) as stack:
        yield stack


def without_password(url: str) -> str:
    """Make the URL of somebody who does not know the password."""
    parts = urlsplit(url)
    user = f"{parts.username}:wrong" if parts.username else ":wrong"
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}"))


def test_every_server_answers(redis_url: str, result_url: str, broker_url: str, database_url: str) -> None:
    """Each fixture is a real server: Valkey, RabbitMQ, PostgreSQL 18."""
    for url in (redis_url, result_url):
        with redis.Redis.from_url(url) as client:
            assert client.info("server")["valkey_version"].startswith("9.")
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone() == (18,)
    with kombu.Connection(broker_url, connect_timeout=120) as broker, broker.SimpleQueue("probe") as queue:
        queue.put({"n": 1})
        message = queue.get(timeout=120)
        message.ack()
        assert message.payload == {"n": 1}


def test_a_password_is_needed_everywhere(stack: Stack, rabbitmq: RabbitMQ) -> None:
    """Loopback is shared with every other user of the machine."""
    endpoints = stack.endpoints
    with redis.Redis.from_url(without_password(endpoints.redis_url)) as client, pytest.raises(redis.RedisError):
        client.ping()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without_password(endpoints.database_url))
    broker = kombu.Connection(without_password(rabbitmq.url), connect_timeout=120)
    with broker, pytest.raises(amqp.AccessRefused, match=r"(?i)access_refused|403"):
        broker.connect()


def test_every_port_is_on_loopback(stack: Stack) -> None:
    """The distribution port and the port mapper of RabbitMQ included."""
    addresses = set()
    for guard in psutil.Process().children():
        for process in guard.children(recursive=True):
            for connection in process.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    addresses.add(connection.laddr.ip)
    assert stack.servers
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_no_password_is_shown(stack: Stack) -> None:
    """Neither in a description, nor in a representation, nor in the list of processes."""
    shown = stack.describe() + repr(stack.endpoints)
    for guard in psutil.Process().children():
        for process in guard.children(recursive=True):
            shown += " ".join(process.cmdline())
    passwords = [urlsplit(url).password for url in stack.endpoints.environment().values()]
    assert [password for password in passwords if password and password in shown] == []
    assert len([password for password in passwords if password]) == 4  # the stand-in for Stripe takes any test key


def test_valkey_keeps_its_data_through_sigkill_unless_wiped(own_stack: Stack) -> None:
    """Same port, same password, another server: billing sees a new run id."""
    url = own_stack.endpoints.redis_url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "1")
        client.execute_command("WAITAOF", 1, 0, 60_000)
        first_run = client.info("server")["run_id"]

        own_stack.valkey.kill()
        assert not own_stack.valkey.running
        own_stack.valkey.restart()
        assert client.get("kept") == b"1"
        assert client.info("server")["run_id"] != first_run

        own_stack.valkey.restart(wipe=True)
        assert client.get("kept") is None


def test_postgres_keeps_what_it_confirmed_through_sigkill(own_stack: Stack) -> None:
    """Even `fast`: fsync is off, but a confirmed transaction has left the process."""
    url = own_stack.endpoints.database_url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")

    own_stack.postgres.kill()
    own_stack.postgres.restart()

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


@pytest.mark.slow
def test_rabbitmq_keeps_durable_messages_through_sigkill(rabbitmq: RabbitMQ, broker_url: str) -> None:
    """A confirmed persistent message in a durable queue survives."""
    confirmed = {"confirm_publish": True}
    with kombu.Connection(broker_url, transport_options=confirmed) as broker, broker.SimpleQueue("kept") as queue:
        queue.put({"n": 1})

    rabbitmq.kill()
    rabbitmq.restart()

    with kombu.Connection(broker_url) as broker, broker.SimpleQueue("kept") as queue:
        assert queue.get(timeout=120).payload == {"n": 1}


def test_two_stacks_run_side_by_side_and_one_directory_has_one_stack(own_stack: Stack) -> None:
    """Ports and directories are their own; the second start in the same directory is refused with one line."""
    with Stack(broker="redis", fast=True) as other:
        assert not set(own_stack.endpoints.environment().values()) & set(other.endpoints.environment().values())
        assert other.directory.exists()
    assert not other.directory.exists()

    with pytest.raises(Fatal, match=rf"already running there \(process {os.getpid()}\)"):
        Stack(own_stack.directory, broker="redis")


def test_a_kept_directory_keeps_data_passwords_and_ports(tmp_path: Path) -> None:
    """`billing up` finds its clients again."""
    with Stack(tmp_path / "kept", broker="redis", fast=True) as stack:
        first = stack.endpoints
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "1")
    with Stack(tmp_path / "kept", broker="redis", fast=True) as stack:
        assert stack.endpoints == first
        with redis.Redis.from_url(first.redis_url) as client:
            assert client.get("kept") == b"1"
    stack.postgres.remove()


def test_an_unknown_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins, and is checked."""
    monkeypatch.setenv(BROKER_VARIABLE, "kafka")
    with pytest.raises(InvalidValue, match="BILLING_EMBEDDED_BROKER: 'kafka': must be one of: auto, rabbitmq, redis"):
        Stack()


OWNER = """
import json, sys, time
from billing.embedded.lifetime import clean_stop
from billing.embedded.stack import Stack
with clean_stop():
    with Stack(broker=sys.argv[1], fast=True) as stack:
        print(json.dumps({"directory": str(stack.directory), "broker": stack.endpoints.broker_url}), flush=True)
        while True:
            time.sleep(0.2)  # and not signal.pause(): a signal just before it would be slept over
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "broker"),
    # `test_demo.py` sends SIGINT to one with RabbitMQ.
    [(signal.SIGKILL, "auto"), (signal.SIGTERM, "auto"), (signal.SIGINT, "redis"), (signal.SIGHUP, "redis")],
)
def test_no_server_outlives_its_owner(mark: str, stack: Stack, end: signal.Signals, broker: str) -> None:
    """Valkey, PostgreSQL, beam, epmd and what they start: all gone, and after a clean stop the directory too."""
    assert stack.servers
    command = [sys.executable, "-c", OWNER, broker]
    owner = subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        started = json.loads(owner.stdout.readline())
        assert len(marked(mark)) > (15 if broker == "auto" else 10)
        owner.send_signal(end)
        if end != signal.SIGKILL:
            owner.send_signal(signal.SIGINT)  # an impatient second Ctrl-C does not cut the stop in half
        code = owner.wait(120)
    finally:
        owner.kill()
        owner.communicate()

    wait_until(lambda: marked(mark) == [], f"nothing is left after {end.name}")
    if end == signal.SIGKILL:
        shutil.rmtree(started["directory"])
    else:
        assert code in {128 + end, 128 + signal.SIGINT}
        assert not Path(started["directory"]).exists()


WITHOUT_RABBITMQ = """
import os
from billing.embedded.stack import Stack
assert os.geteuid() != 0
with Stack(fast=True) as stack:
    assert stack.rabbitmq is None
    print(stack.endpoints.broker_url.split(":")[0])
"""


def as_nobody() -> list[str]:
    """Say how root becomes nobody. Where the interpreter lies below /root, the right to read comes along, no other."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    can_read = [*become, sys.executable, "-c", "import billing.embedded.stack, psycopg"]
    if subprocess.run(can_read, cwd=REPOSITORY, check=False, capture_output=True).returncode != 0:
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return become


def test_it_works_as_an_unprivileged_user_without_rabbitmq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs root; without RabbitMQ the broker is Valkey, and no server is missing."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        script = "import billing.embedded.rabbitmq as r\nr.PLACES = ()\n" + WITHOUT_RABBITMQ
        environ = {"HOME": home, "TMPDIR": home, "PATH": "/bin", "PYTHONPATH": str(REPOSITORY)}
        command = [*as_nobody(), sys.executable, "-c", script]
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=240)
    assert (done.stdout.strip(), done.stderr) == ("redis", "")


def test_the_data_go_elsewhere_when_the_server_s_user_cannot_reach_them(tmp_path: Path) -> None:
    """A checkout below /root: PostgreSQL's user reaches neither data nor binaries, so both go where it can."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Stack(closed / "stack", broker="redis", fast=True) as stack, psycopg.connect(stack.endpoints.database_url):
        data = stack.postgres.data
        if os.geteuid() == 0:
            assert data.parent == (stack.directory / "postgres" / "elsewhere").resolve()
            assert pwd.getpwuid(data.stat().st_uid).pw_name in {"postgres", "nobody"}
        else:
            assert data == stack.directory / "postgres" / "data"
    assert closed.stat().st_mode & 0o777 == 0o700
    assert read(data / "PG_VERSION") == b"18\n"
    stack.postgres.remove()
