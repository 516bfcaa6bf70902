"""`billing.setup(app)` attaches to any Celery app, once, and its passwords are printed nowhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
import pytest

import billing
from billing import BillableTask
from billing.core.errors import Fatal, InvalidValue
from billing.integration.configuration import read_settings
from billing.task.attachment import attachment_of, is_attached
from billing.task.billable import lifecycle_of

SECRET = "hunter2"
URLS = {
    "billing_redis_url": f"redis://:{SECRET}@cache.example:6379/3",
    "billing_database_url": f"postgresql://billing:{SECRET}@db.example:5432/billing",
    "billing_result_url": f"redis://:{SECRET}@results.example:6379/0",
}
MakeApp = Callable[..., celery.Celery]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read nothing of the machine's own."""
    for variable in ("REDIS", "DATABASE", "BROKER", "RESULT"):
        monkeypatch.delenv(f"BILLING_{variable}_URL", raising=False)
    monkeypatch.setenv("BILLING_CONNECTION_FILE", str(tmp_path / "none.json"))


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Make apps of other people, and close them."""
    made: list[celery.Celery] = []

    def make(name: str = "foreign", **options: Any) -> celery.Celery:
        made.append(celery.Celery(name, broker="memory://", set_as_current=False, **options))
        return made[-1]

    yield make
    for app in made:
        app.close()


def lower_case(app: celery.Celery) -> None:
    """Configure an app by `update`."""
    app.conf.update(URLS, billing_shards=8)


def lower_case_module(app: celery.Celery) -> None:
    """Configure an app by an object with lower-case names, as celeryconfig.py has."""
    app.config_from_object(SimpleNamespace(**URLS, billing_shards=8))


def namespaced(app: celery.Celery) -> None:
    """Configure an app by an object with upper-case names in a namespace, as Django's settings have."""
    names = {f"CELERY_{key.upper()}": value for key, value in URLS.items()}
    app.config_from_object(SimpleNamespace(**names, CELERY_BILLING_SHARDS=8), namespace="CELERY")


CONFIGURATIONS = pytest.mark.parametrize("configure", [lower_case, lower_case_module, namespaced])
Configure = Callable[[celery.Celery], None]


@CONFIGURATIONS
def test_settings_are_read_from_every_form_of_configuration(make_app: MakeApp, configure: Configure) -> None:
    """Given a foreign app, however it is configured, then billing reads its keys, passwords and all, each time."""
    app = make_app()
    configure(app)
    billing.setup(app)

    for settings in (attachment_of(app).runtime.settings, read_settings(app), read_settings(app)):
        assert settings.shards == 8
        assert {
            f"billing_{name}": getattr(settings, name) for name in ("redis_url", "database_url", "result_url")
        } == URLS


@CONFIGURATIONS
@pytest.mark.parametrize("before", [True, False])
def test_passwords_are_printed_nowhere(make_app: MakeApp, configure: Configure, *, before: bool) -> None:
    """Given passwords in the configuration, before or after setup, then no report of the app shows them."""
    app = make_app()
    if before:
        configure(app)
    billing.setup(app)
    if not before:
        configure(app)

    for _ in range(2):
        for shown in (
            app.bugreport(),
            app.conf.humanize(),
            app.conf.humanize(with_defaults=True),
            str(app.conf.table(with_defaults=True)),
            repr(attachment_of(app).runtime.settings),
        ):
            assert SECRET not in shown
    assert "cache.example:6379/3" in app.conf.humanize()


def test_two_apps_of_one_configuration_both_read_its_passwords(make_app: MakeApp) -> None:
    """Given one configuration object of two apps, when one hides its passwords, then the other still has them."""
    shared = SimpleNamespace(**URLS)
    apps = [make_app(name) for name in ("one", "two")]
    for app in apps:
        app.config_from_object(shared)
        billing.setup(app)
        app.bugreport()

    assert [read_settings(app).redis_url for app in apps] == [URLS["billing_redis_url"]] * 2
    assert shared.billing_redis_url == URLS["billing_redis_url"]


def test_a_key_that_is_changed_later_counts(make_app: MakeApp) -> None:
    """Given a setting that is changed after the passwords were hidden, then the new one is read."""
    app = make_app()
    lower_case(app)
    billing.setup(app)
    app.bugreport()

    app.conf.billing_redis_url = "redis://other.example/1"

    assert read_settings(app).redis_url == "redis://other.example/1"


@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_an_unknown_key_is_refused_in_every_form(make_app: MakeApp, namespace: str | None) -> None:
    """Given a typing mistake in a foreign app, then the refusal names the key and what was meant."""
    app = make_app()
    name = "CELERY_BILLING_SHARD" if namespace else "billing_shard"
    app.config_from_object(SimpleNamespace(**{name: 8}), namespace=namespace)
    billing.setup(app)

    with pytest.raises(InvalidValue, match="billing_shard: 8: is not a billing setting; did you mean billing_shards"):
        read_settings(app)


def test_the_environment_wins_over_a_foreign_app(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a key of the app and its variable, then the variable counts."""
    app = make_app()
    namespaced(app)
    monkeypatch.setenv("BILLING_SHARDS", "32")

    assert read_settings(billing.setup(app)).shards == 32


def test_setup_twice_changes_nothing(make_app: MakeApp) -> None:
    """Given an app with billing, when it is set up again, then tasks, steps and options are the same."""
    app = make_app()

    def seen() -> tuple[Any, ...]:
        return (
            attachment_of(app),
            set(app.steps["worker"]),
            [option.name for option in app.user_options["worker"]],
            {name: id(task) for name, task in app.tasks.items()},
        )

    assert billing.setup(app) is app
    before = seen()
    assert billing.setup(app) is app

    assert seen() == before
    assert [option.name for option in app.user_options["worker"]] == ["fulfillment"]


def test_two_apps_in_one_process_share_nothing(make_app: MakeApp) -> None:
    """Given two apps with billing, then each has its own tasks, settings and lifecycle; a third has none."""
    one, two, plain = make_app("one"), make_app("two"), make_app("plain")
    one.conf.update(billing_shards=8)
    two.conf.update(billing_shards=16)
    billing.setup(one)
    billing.setup(two)
    for app in (one, two, plain):
        app.finalize()

    names = {name for name in one.tasks if name.startswith("billing.")}
    assert names
    assert all(one.tasks[name] is not two.tasks[name] for name in names)
    assert [attachment_of(app).runtime.settings.shards for app in (one, two)] == [8, 16]
    assert attachment_of(one).lifecycle is not attachment_of(two).lifecycle
    assert not any(name.startswith("billing.") for name in plain.tasks)
    assert not is_attached(plain)


def test_a_billable_task_of_an_app_without_setup_says_what_is_missing(make_app: MakeApp) -> None:
    """Given a billable task and no `setup(app)`, when it would be billed, then it refuses to run unbilled (L3)."""
    app = make_app("unbilled")

    def body(client_id: str) -> None:
        """Do nothing."""

    app.task(shared=False, name="page", base=BillableTask, sku="page")(body)
    app.finalize()

    with pytest.raises(Fatal, match=r"app 'unbilled': .*billing\.setup\(app\)"):
        lifecycle_of(app.tasks["page"])


def test_importing_billing_brings_neither_celery_nor_anything_slow() -> None:
    """Given `import billing` alone, then Celery, SQLAlchemy and redis are not imported until a name is used."""
    heavy = "{'celery', 'kombu', 'sqlalchemy', 'redis', 'psycopg', 'alembic', 'rich', 'stripe'}"
    code = f"import sys, billing; print(sorted({heavy} & set(sys.modules)))"

    assert ast.literal_eval(python(code)) == []


def test_who_submits_billed_tasks_imports_nothing_that_speaks_to_postgresql() -> None:
    """Given an app that is set up and a task that is declared, then SQLAlchemy and psycopg are not imported."""
    program = """
import sys, celery, billing
app = billing.setup(celery.Celery("shop", broker="memory://"))
@app.task(base=billing.BillableTask, sku="page", shared=False)
def capture(client_id): ...
app.finalize()
capture.delay("acme")
print(sorted({"sqlalchemy", "psycopg", "alembic", "rich", "stripe"} & set(sys.modules)))
"""
    assert ast.literal_eval(python(program)) == []


def test_the_public_names_are_there() -> None:
    """Given the names that others program against, then each is importable in a process of its own, and in `dir`."""
    names = "BillableTask, InsufficientCredits, UsageEvent, setup, usage, admin"
    python(f"from billing import {names}; import billing; assert not {{*billing.__all__}} - {{*dir(billing)}}")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        billing.nonsense  # noqa: B018 - the point of the test


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stdout
