"""The stand-in as a process: what it answered outlives SIGKILL, its port is on loopback, it ends when asked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import stripe

from billing.core.errors import Unreachable
from billing.embedded.endpoints import Endpoints
from billing.embedded.server import free_port
from billing.embedded.stack import Stack
from billing.embedded.stripe_sandbox import StripeSandbox
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.stripe_sandbox import sdk_client
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "billing.cli.main", "stripe", "sandbox"]


@pytest.fixture
def own_sandbox(tmp_path: Path) -> Iterator[StripeSandbox]:
    """Run a stand-in of this test's own, with its file in a directory."""
    server = StripeSandbox(tmp_path / "stripe")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(own_sandbox: StripeSandbox) -> Iterator[stripe.StripeClient]:
    """Yield the SDK's client for it."""
    http_client = stripe.RequestsClient(timeout=(60, 60))
    yield sdk_client(own_sandbox.url, http_client)
    http_client.close()  # type: ignore[no-untyped-call]


def prepare(client: stripe.StripeClient) -> str:
    """Make the meter and a customer; return the customer."""
    client.v1.billing.meters.create(
        {"display_name": "Credits", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
    )
    return client.v1.customers.create({"name": "acme"}).id


def send(client: stripe.StripeClient, customer: str, identifier: str, key: str) -> Any:
    """Send one credit."""
    payload = {"value": "1", "stripe_customer_id": customer}
    params: Any = {"event_name": "credits", "identifier": identifier, "payload": payload}
    return client.v1.billing.meter_events.create(params, {"idempotency_key": key})


def test_a_restarted_stand_in_has_everything(own_sandbox: StripeSandbox, client: stripe.StripeClient) -> None:
    """Customers, meters, events, saved answers, knobs and time; `wipe` forgets them."""
    customer = prepare(client)
    send(client, customer, "i1", "k1")
    with SandboxControl(own_sandbox.url) as control:
        control.knobs(summary_lag_seconds=7)
        control.set_time(1_795_262_400)
        before = control.state()
    own_sandbox.restart()
    with SandboxControl(own_sandbox.url) as control:
        after = control.state()
        assert {**after, "calls": None} == {**before, "calls": None}
        assert after["totals"] == {customer: {"credits": 1}}
        control.knobs(key_window_seconds=400 * 86_400)
        assert send(client, customer, "i1", "k1").last_response.headers["Idempotent-Replayed"] == "true"
        with pytest.raises(stripe.InvalidRequestError, match="already exists"):
            send(client, customer, "i1", "k2")

    own_sandbox.restart(wipe=True)
    with SandboxControl(own_sandbox.url) as control:
        assert (control.state()["events"], control.state()["knobs"]["summary_lag_seconds"]) == (0, 0)


def test_what_was_answered_outlives_sigkill(own_sandbox: StripeSandbox, client: stripe.StripeClient) -> None:
    """A kill in the middle of a stream: every answered event is there, at most the unanswered one besides."""
    customer = prepare(client)
    answered: list[str] = []
    tried = 0

    def stream() -> None:
        nonlocal tried
        for number in range(100_000):
            tried = number + 1
            try:
                send(client, customer, f"i{number}", f"k{number}")
            except stripe.StripeError:
                return
            answered.append(f"i{number}")

    thread = threading.Thread(target=stream)
    thread.start()
    wait_until(lambda: len(answered) >= 25, "25 events are answered")
    own_sandbox.kill()
    thread.join(120)
    own_sandbox.restart()

    with SandboxControl(own_sandbox.url) as control:
        kept = [event["identifier"] for event in control.events()]
        assert kept[: len(answered)] == answered
        assert len(kept) in {len(answered), tried} <= {len(answered), len(answered) + 1}
        assert control.total(customer, "credits") == len(kept)


def test_the_stack_has_one_and_says_where(stack: Stack, stripe_sandbox: SandboxControl) -> None:
    """Billing finds it by a variable; it listens on loopback alone; its log names what it is."""
    endpoints: Endpoints = stack.endpoints
    assert endpoints.environment()["BILLING_STRIPE_SANDBOX_URL"] == stripe_sandbox.url == stack.stripe_sandbox.url
    assert f"Stripe stand-in  {stripe_sandbox.url}/"[:-1] in stack.describe()
    process = psutil.Process(stack.stripe_sandbox.child.child_pid)
    listening = {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert "not Stripe" in stack.stripe_sandbox.log.read_text()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_what_it_is_and_ends_when_asked(end: signal.Signals) -> None:
    """Also while a call hangs, and with no word on standard error."""
    process = subprocess.Popen([*COMMAND, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split()[-1]
        assert first.startswith("stand-in for Stripe (not Stripe: no money moves")
        assert f"BILLING_STRIPE_SANDBOX_URL={url}" in second
        with SandboxControl(url) as control:
            control.fault("hang")
            hanging = socket.create_connection((url.split("/")[2].split(":")[0], int(url.rsplit(":", 1)[1])))
            hanging.sendall(b"GET /v1/customers/cus_1 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: control.state()["faults"] == [], "the call hangs")
        process.send_signal(end)
        assert process.wait(120) == 0
        assert hanging.recv(1) == b""
        hanging.close()
    finally:
        process.kill()
        _, error = process.communicate()
    assert error == ""
    with SandboxControl(url) as control, pytest.raises(Unreachable, match="does not answer"):
        control.state()


def test_a_port_in_use_is_one_line() -> None:
    """No traceback, exit code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, f"--port={port}"], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: --port: {port}: is in use by another program on 127.0.0.1\n"


@pytest.mark.parametrize("file", ["nowhere/sandbox.sqlite3", "text"])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, file: str) -> None:
    """A directory that is not there, a file that is no database."""
    (tmp_path / "text").write_text("this is no database, it is a text that is long enough to be looked at\n" * 9)
    path = tmp_path / file
    command = [*COMMAND, f"--port={free_port()}", f"--data={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: --data: '{path}': cannot be used as the stand-in's memory: ")
    assert done.stderr.count("\n") == 1


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A reset would empty its tables of the same names."""
    path = tmp_path / "shop.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE customer (name text)")
    before = path.read_bytes()

    command = [*COMMAND, f"--port={free_port()}", f"--data={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    assert done.stderr == f"Error: --data: '{path}': is another program's database, not the stand-in's memory\n"
    assert (done.returncode, path.read_bytes()) == (1, before)


def test_task_workers_do_not_import_the_server() -> None:
    """`import billing` and the command line stay fast: tornado and SQLite come with the command alone."""
    modules = "{'billing.sinks.stripe.sandbox', 'sqlite3', 'stripe'}"
    script = f"import sys, billing, billing.cli.main, billing.cli.stripe; print(*({modules} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
