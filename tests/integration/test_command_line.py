"""The command line as a user types it: what it prints, and that the same command again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from billing.cli.main import COMMANDS, billing
from tests.terminal import NOWHERE, SECRET, Terminal

pytestmark = pytest.mark.integration


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Walk through the commands and their subcommands."""
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_explains_itself() -> None:
    """Given any command, when it is asked for help, then it says what it does, with an example."""
    paths = list(every_command(billing))

    assert {path[0] for path in paths if path} == set(COMMANDS)
    for path in paths:
        for flag in ("--help", "-h"):
            result = CliRunner().invoke(billing, [*path, flag], prog_name="billing")
            assert result.exit_code == 0, path
            assert result.stdout.startswith(f"Usage: {' '.join(('billing', *path))}"), path
        if path and path[-1] not in {"client", "price"}:
            assert f"Example: billing {' '.join(path)}" in result.stdout or "Example: billing -A" in result.stdout, path


def test_an_app_is_named_by_option_or_variable(shop: Terminal) -> None:
    """Given an app with billing, then `billing -A shop …` and `BILLING_APP=shop billing …` print the same."""
    (shop.directory / "shop.py").write_text(
        "import celery, billing\napp = celery.Celery('shop', broker='memory://')\nbilling.setup(app)\n"
    )

    own = shop.run("-A", "shop", "balance", "acme", "--json")
    variable = shop.run("balance", "acme", "--json", BILLING_APP="shop")

    assert own.json()["available"] == 100
    assert variable.json() == own.json()


def test_a_password_in_an_apps_configuration_reaches_the_server(shop: Terminal) -> None:
    """Given an app that holds the URLs itself, with passwords, then the command line connects with them."""
    urls = {f"{name.lower()}": shop.environment[name] for name in ("BILLING_REDIS_URL", "BILLING_DATABASE_URL")}
    (shop.directory / "shop.py").write_text(
        "import celery, billing\napp = celery.Celery('shop', broker='memory://')\n"
        f"app.conf.update({urls!r})\nbilling.setup(app)\napp.bugreport()\n"
    )
    for name in ("BILLING_REDIS_URL", "BILLING_DATABASE_URL"):
        del shop.environment[name]
    try:
        assert shop.run("-A", "shop", "balance", "acme", "--json").json()["available"] == 100
    finally:
        shop.environment.update({name.upper(): url for name, url in urls.items()})


def test_migrate_twice_changes_nothing(bare: Terminal) -> None:
    """Given an empty database, when it is migrated twice, then the first makes all and the second nothing."""
    first, again = bare.type("migrate", "--json"), bare.type("migrate", "--json")

    assert len(first.json()) > 12
    assert again.json() == []
    assert "database is at" in bare.type("migrate").out


def test_a_client_is_added_once_and_shown(shop: Terminal) -> None:
    """Given a client, when it is added again, then nothing changes; list and show tell its balance."""
    before = shop.books()
    assert shop.type("client", "add", "acme", "--json").json() == {"client_id": "acme", "created": False}
    assert shop.books() == before

    assert shop.type("client", "add", "globex", "--json").json()["created"] is True
    listed = shop.type("client", "list", "--json").json()
    assert [(view["client"]["client_id"], view["balance"]["available"]) for view in listed] == [
        ("acme", 100),
        ("globex", 0),
    ]
    assert [
        view["client"]["client_id"] for view in shop.type("client", "list", "--after", "acme", "--json").json()
    ] == ["globex"]
    shown = shop.type("client", "show", "acme")
    assert shown.code == 0
    assert "acme" in shown.out
    assert "100" in shown.out


def test_prices_are_versions(shop: Terminal) -> None:
    """Given a price, when it is set again, then it is the same; another one is a new version from now on."""
    same = shop.type("price", "set", "page", "5", "--unit", "page", "--json").json()
    assert same["version"] == 1
    assert shop.type("price", "set", "page", "6", "--unit", "page", "--json").json()["version"] == 2

    listed = shop.type("price", "list", "--json").json()
    assert [(price["sku"], price["version"], price["credits_per_unit"]) for price in listed] == [
        ("page", 1, 5),
        ("page", 2, 6),
    ]
    assert "page" in shop.type("price", "list").out


def test_a_grants_key_makes_it_idempotent(shop: Terminal) -> None:
    """Given a key, when it comes again with the same amount, then it is the same grant; with another, refused."""
    before = shop.books()
    again = shop.type("grant", "acme", "100", "--key", "first", "--json").json()
    shop.type("grant", "acme", "101", "--key", "first").refused(2, "first", "100", "101")
    assert shop.books() == before
    assert again["applied"] is True

    other = shop.type("grant", "acme", "1_000", "--key", "second", "--json").json()
    assert other["grant_id"] != again["grant_id"]
    balance = shop.type("balance", "acme", "--json").json()
    assert (balance["granted"], balance["available"], balance["held"], balance["spent"]) == (1_100, 1_100, 0, 0)
    assert "1,100" in shop.type("balance", "acme").out


def test_a_client_without_usage_has_an_empty_history(shop: Terminal) -> None:
    """Given a client that used nothing, then its usage is nothing, in words and in JSON."""
    assert shop.type("usage", "acme", "--json").json() == {"rows": [], "total": {"rows": 0, "credits": 0}}
    assert "0 of 0 rows" in shop.type("usage", "acme").out


def test_celery_report_shows_no_password(shop: Terminal) -> None:
    """Given URLs with passwords in an app, then `celery report` and `celery inspect`'s source show none."""
    urls = {name.lower(): url for name, url in NOWHERE.items()}
    (shop.directory / "secret_app.py").write_text(
        "import celery, billing\napp = celery.Celery('secret', broker='memory://')\n"
        f"app.conf.update({urls!r})\nbilling.setup(app)\n"
    )

    answer = shop.spawn("celery", "-A", "secret_app", "report")

    assert answer.code == 0, answer
    assert "billing_redis_url" in answer.out
    assert SECRET not in answer.out + answer.err
