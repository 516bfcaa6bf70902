"""The wheel ships `billing` alone, and a fleet that has nothing but the wheel and its dependencies bills a task."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing.embedded.process import Child
from tests.documents import blocks
from tests.waiting import wait_until
from tests.wheels import ROOT, run

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: A foreign app of fifteen lines: it knows nothing of this repository.
SHOP = """\
import os

import celery
from billing import BillableTask, setup

app = celery.Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_RESULTS"])
app.conf.task_default_queue = "shop"
app.conf.broker_connection_retry_on_startup = True
setup(app)


@app.task(base=BillableTask, sku="page-capture", quantity=lambda client_id, pages: pages)
def capture(client_id, pages):
    return f"{pages} pages for {client_id}"
"""


def test_the_wheel_ships_billing_alone_and_all_of_it(wheel: Path) -> None:
    """Given the wheel, then it has every file of `billing` that is no cache, and nothing of the fleet or the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "billing").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert shipped == wanted
    assert {name.split("/", 1)[0] for name in shipped} == {"billing"}
    for kind in (
        "billing/py.typed",
        "billing/credits/lua/reserve.lua",
        "billing/events/usage_event.schema.json",
        "billing/schema/migrations/versions/0001_catalog_and_ledger.py",
        "billing/schema/migrations/script.py.mako",
    ):
        assert kind in shipped
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_a_foreign_apps_own_tests_run_on_the_twin_without_a_server(wheel_environment: Path, tmp_path: Path) -> None:
    """Given the wheel, when the tests of docs/testing.md are run, then its entry point brings the fixtures."""
    for name, text in blocks("testing.md").items():
        (tmp_path / name).write_text(text)
    options = ("-p", "no:valkey", "-p", "no:cacheprovider", "-W", "error", "-q", "--rootdir", str(tmp_path))
    told = run([wheel_environment / "bin" / "python", "-m", "pytest", *options], tmp_path)

    assert "5 passed" in told


def test_the_environment_has_the_wheel_and_not_the_checkout(wheel_environment: Path) -> None:
    """Given the environment, then `billing` comes out of it, and the fleet of the checkout is not importable."""
    code = (
        "import billing, importlib.util as u;"
        "print(billing.__file__); print([n for n in ('worker_tasks', 'celeryconfig', 'tests') if u.find_spec(n)])"
    )
    where, fleet = run([wheel_environment / "bin" / "python", "-c", code], wheel_environment).splitlines()

    assert Path(where).is_relative_to(wheel_environment)
    assert fleet == "[]"


@pytest.fixture
def shop(
    wheel_environment: Path, redis_url: str, result_url: str, broker_url: str, database_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Write a foreign app and the variables under which it runs."""
    (tmp_path / "shop.py").write_text(SHOP)
    variables = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_DATABASE_URL": database_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_RESULT_URL": result_url,
        "SHOP_BROKER": broker_url,
        "SHOP_RESULTS": result_url,
        "BILLING_APP": "shop",
        "PATH": f"{wheel_environment / 'bin'}:{os.environ['PATH']}",
    }
    run([wheel_environment / "bin" / "billing", "migrate"], tmp_path, **variables)
    workers = [
        spawn(wheel_environment, tmp_path, variables, "consumer", "--fulfillment", "-P", "solo"),
        spawn(wheel_environment, tmp_path, variables, "worker", "-c", "1"),
    ]
    try:
        yield variables
    finally:
        for worker in workers:
            worker.stop(20)


def spawn(wheel_environment: Path, directory: Path, variables: dict[str, str], name: str, *options: str) -> Child:
    """Start a worker of the foreign app with the environment's own interpreter."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BILLING_"))}
    celery: list[str | os.PathLike[str]] = [
        wheel_environment / "bin" / "python",
        "-m",
        "celery",
        "-A",
        "shop",
        "worker",
        "-n",
        f"{name}@shop",
        "-l",
        "INFO",
    ]
    log = directory / f"{name}.log"
    return Child.spawn(name, [*celery, *options], environ={**inherited, **variables}, cwd=directory, log=log)


def test_a_foreign_app_bills_a_task_with_the_wheel(
    wheel_environment: Path, shop: dict[str, str], tmp_path: Path
) -> None:
    """Given the wheel and an app of fifteen lines, when one task runs, then one row and an exact balance (L2, L3)."""

    def billing(*arguments: str) -> Any:
        text = run([wheel_environment / "bin" / "billing", *arguments, "--json"], tmp_path, **shop)
        return json.loads(text)

    billing("client", "add", "acme")
    billing("price", "set", "page-capture", "5", "--unit", "page")
    assert billing("grant", "acme", "100", "--key", "first")["applied"] is True

    submit = "import shop; print(shop.capture.delay('acme', pages=3).get(timeout=120))"
    assert run([wheel_environment / "bin" / "python", "-c", submit], tmp_path, **shop).strip() == "3 pages for acme"

    wait_until(lambda: billing("usage", "acme")["rows"], "the row is in the usage history")
    usage = billing("usage", "acme")
    assert usage["total"] == {"rows": 1, "credits": 15}
    assert [(row["sku"], row["quantity"], row["credits"]) for row in usage["rows"]] == [("page-capture", 3, 15)]
    balance = billing("balance", "acme")
    names = ("granted", "available", "held", "spent", "owed")
    assert {name: balance[name] for name in names} == {
        "granted": 100, "available": 85, "held": 0, "spent": 15, "owed": 0
    }  # fmt: skip
    # An installed entry point gives `celery` the same commands.
    celery = [wheel_environment / "bin" / "python", "-m", "celery", "-A", "shop", "billing"]
    assert json.loads(run([*celery, "balance", "acme", "--json"], tmp_path, **shop)) == balance
    findings = billing("doctor")
    assert "fail" not in {finding["verdict"] for finding in findings}
    assert any("1 billable tasks in app shop" in finding["seen"] for finding in findings)
