"""A Flower that others could reach starts with authentication only; another version starts as it is, and says so."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from billing.embedded.server import free_port
from tests.fleet.harness import Fleet
from tests.integration.watching import CONFIGURATION, wait_for_answer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OPEN = [
    pytest.param(("--address=0.0.0.0",), {}, "0.0.0.0", id="command line"),  # noqa: S104 - it is to be refused
    pytest.param(("--address=::",), {}, "::", id="IPv6"),
    pytest.param(("--address=",), {}, "", id="every address"),
    pytest.param(("--address=flower.example",), {}, "flower.example", id="a name"),
    pytest.param((), {"FLOWER_ADDRESS": "0.0.0.0"}, "0.0.0.0", id="environment"),  # noqa: S104
    pytest.param((), {"FLOWER_ADDRESS": ""}, "", id="empty environment"),
    pytest.param(("--address=0.0.0.0",), {"FLOWER_BASIC_AUTH": ""}, "0.0.0.0", id="empty password"),  # noqa: S104
]


@pytest.mark.parametrize(("options", "environment", "address"), OPEN)
def test_another_address_without_authentication_is_refused(
    running_fleet: Fleet, options: tuple[str, ...], environment: dict[str, str], address: str
) -> None:
    """One line, and an exit code that is not 0."""
    assert ended(running_fleet, CONFIGURATION, options, environment) == (1, refusal(address))


def test_a_line_of_the_file_itself_is_refused_too(running_fleet: Fleet, tmp_path: Path) -> None:
    own = tmp_path / "flowerconfig.py"
    own.write_text(f"{CONFIGURATION.read_text()}\naddress = '0.0.0.0'\n")

    assert ended(running_fleet, own, (), {}) == (1, refusal("0.0.0.0"))  # noqa: S104


def refusal(address: str) -> list[str]:
    rule = (
        "is not loopback, and Flower shows the work of every client: give it authentication (--basic_auth, or --auth "
        "with --auth_provider), or listen on 127.0.0.1 or --unix_socket"
    )
    return [f"billing: address: {address!r}: {rule}"]


def ended(
    fleet: Fleet, configuration: Path, options: tuple[str, ...], environment: dict[str, str]
) -> tuple[int | None, list[str]]:
    """Run a Flower that ends by itself; return its exit code and what it said."""
    name = f"refused-{free_port()}"
    child = fleet._spawn(
        name, "flower", f"--conf={configuration}", f"--port={free_port()}", *options, environment=environment
    )
    wait_until(lambda: not child.running, "Flower ended")
    return child.returncode, (fleet.directory / f"{name}.log").read_text().splitlines()


def test_with_authentication_it_listens_where_it_is_told(running_fleet: Fleet) -> None:
    port = free_port()
    place = (f"--conf={CONFIGURATION}", f"--port={port}", "--address=0.0.0.0")
    running_fleet._spawn("guarded", "flower", *place, environment={"FLOWER_BASIC_AUTH": "operator:secret"})

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        assert http.get("/tasks").status_code == 401
        assert http.get("/api/tasks").status_code == 401
        assert http.get("/api/task/result/none").status_code == 401
        assert http.get("/tasks", auth=("operator", "secret")).status_code == 200


def test_a_unix_socket_needs_no_authentication(running_fleet: Fleet) -> None:
    path = running_fleet.directory / "flower.socket"
    running_fleet._spawn("local", "flower", f"--conf={CONFIGURATION}", f"--unix_socket={path}", "--address=")

    wait_until(path.exists, "the socket is there")
    transport = httpx.HTTPTransport(uds=os.fspath(path))
    with httpx.Client(base_url="http://localhost", transport=transport, timeout=120) as http:
        assert http.get("/tasks").status_code == 200


def test_another_version_of_flower_starts_as_it_is_and_says_so(running_fleet: Fleet, tmp_path: Path) -> None:
    own = tmp_path / "flowerconfig.py"
    own.write_text(f"import flower as installed\ninstalled.__version__ = '3.0.1'\n{CONFIGURATION.read_text()}")
    port = free_port()
    running_fleet._spawn("newer", "flower", f"--conf={own}", f"--port={port}")

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        wait_for_answer(http)
        page = http.get("/tasks").text
    assert 'data-column="uuid"' in page
    assert "billing_client" not in page
    log = (running_fleet.directory / "newer.log").read_text()
    assert log.count("billing: Flower 3.0.1 starts without billing's columns") == 1
