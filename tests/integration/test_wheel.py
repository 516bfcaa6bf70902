"""The wheel ships `billing` alone, and a fleet that has nothing but the wheel and its dependencies bills a task."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing.embedded.process import Child
from tests.documents import blocks
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, with the build system that is installed and without a network."""
    directory = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)], directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment with the wheel; its dependencies are those that the tests run with.

    A path file names this interpreter's packages. Python does not read the path files in there, so an editable
    installation of the checkout stays out.
    """
    directory = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)], directory)
    python = directory / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], directory).strip())
    here = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()))
    install = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", f"--python={python}", "install")
    run([sys.executable, *install, "--no-deps", "--no-index", str(wheel)], directory)
    (packages / "dependencies.pth").write_text("\n".join(here))
    return directory


def run(command: list[Any], directory: Path, **environment: str) -> str:
    """Run a command outside of the checkout; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BILLING_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


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


def test_a_foreign_apps_own_tests_run_on_the_twin_without_a_server(environment: Path, tmp_path: Path) -> None:
    """Given the wheel, when the tests of docs/testing.md are run, then its entry point brings the fixtures."""
    for name, text in blocks("testing.md").items():
        (tmp_path / name).write_text(text)
    options = ("-p", "no:valkey", "-p", "no:cacheprovider", "-W", "error", "-q", "--rootdir", str(tmp_path))
    told = run([environment / "bin" / "python", "-m", "pytest", *options], tmp_path)

    assert "5 passed" in told


def test_the_environment_has_the_wheel_and_not_the_checkout(environment: Path) -> None:
    """Given the environment, then `billing` comes out of it, and the fleet of the checkout is not importable."""
    code = (
        "import billing, importlib.util as u;"
        "print(billing.__file__); print([n for n in ('worker_tasks', 'celeryconfig', 'tests') if u.find_spec(n)])"
    )
    where, fleet = run([environment / "bin" / "python", "-c", code], environment).splitlines()

    assert Path(where).is_relative_to(environment)
    assert fleet == "[]"


@pytest.fixture
def shop(
    environment: Path, redis_url: str, result_url: str, broker_url: str, database_url: str, tmp_path: Path
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
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    run([environment / "bin" / "billing", "migrate"], tmp_path, **variables)
    workers = [
        spawn(environment, tmp_path, variables, "consumer", "--fulfillment", "-P", "solo"),
        spawn(environment, tmp_path, variables, "worker", "-c", "1"),
    ]
    try:
        yield variables
    finally:
        for worker in workers:
            worker.stop(20)


def spawn(environment: Path, directory: Path, variables: dict[str, str], name: str, *options: str) -> Child:
    """Start a worker of the foreign app with the environment's own interpreter."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BILLING_"))}
    celery: list[str | os.PathLike[str]] = [
        environment / "bin" / "python",
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


def test_a_foreign_app_bills_a_task_with_the_wheel(environment: Path, shop: dict[str, str], tmp_path: Path) -> None:
    """Given the wheel and an app of fifteen lines, when one task runs, then one row and an exact balance (L2, L3)."""

    def billing(*arguments: str) -> Any:
        text = run([environment / "bin" / "billing", *arguments, "--json"], tmp_path, **shop)
        return json.loads(text)

    billing("client", "add", "acme")
    billing("price", "set", "page-capture", "5", "--unit", "page")
    assert billing("grant", "acme", "100", "--key", "first")["applied"] is True

    submit = "import shop; print(shop.capture.delay('acme', pages=3).get(timeout=120))"
    assert run([environment / "bin" / "python", "-c", submit], tmp_path, **shop).strip() == "3 pages for acme"

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
    celery = [environment / "bin" / "python", "-m", "celery", "-A", "shop", "billing"]
    assert json.loads(run([*celery, "balance", "acme", "--json"], tmp_path, **shop)) == balance
    findings = billing("doctor")
    assert "fail" not in {finding["verdict"] for finding in findings}
    assert any("1 billable tasks in app shop" in finding["seen"] for finding in findings)
