"""What the command line refuses: one line with field, value and rule, an exit code, and nothing half done."""

from __future__ import annotations

import psycopg
import pytest

from tests.terminal import NOWHERE, SECRET, Terminal

pytestmark = pytest.mark.integration


TOO_MUCH = str(2**53)
REFUSED = [
    (("client", "add", "two words"), ("client_id", "'two words'", "must be")),
    (("client", "add", ""), ("client_id", "must be")),
    (("client", "add", "x" * 129), ("client_id", "128")),
    (("client", "list", "--after", "\udcff"), ("after", "must be")),
    (("client", "show", "nobody"), ("client_id", "'nobody'", "known client")),
    (("balance", "nobody"), ("client_id", "'nobody'", "known client")),
    (("usage", "nobody"), ("client_id", "'nobody'", "known client")),
    (("grant", "nobody", "5"), ("client_id", "'nobody'", "known client")),
    (("grant", "acme", "-5"), ("credits", "-5", "must be from 1")),
    (("grant", "acme", "0"), ("credits", "0", "must be from 1")),
    (("grant", "acme", "1.5"), ("credits", "'1.5'", "whole number")),
    (("grant", "acme", "ten"), ("credits", "'ten'", "whole number")),
    (("grant", "acme", ""), ("credits", "''", "whole number")),
    (("grant", "acme", TOO_MUCH), ("credits", TOO_MUCH, str(2**53 - 1))),
    (("grant", "acme", "5", "--key", ""), ("key", "must be")),
    (("grant", "acme", "5", "--key", "x" * 256), ("key", "255")),
    (("price", "set", "Bad SKU", "5", "--unit", "page"), ("sku", "'Bad SKU'", "must be")),
    (("price", "set", "page", "-1", "--unit", "page"), ("credits_per_unit", "-1", "must be from 0")),
    (("price", "set", "page", "0.5", "--unit", "page"), ("credits_per_unit", "'0.5'", "whole number")),
    (("price", "set", "page", TOO_MUCH, "--unit", "page"), ("credits_per_unit", TOO_MUCH, "must be")),
    (("price", "set", "page", "7", "--unit", "kilo"), ("unit", "'kilo'", "must stay 'page'")),
    (("price", "set", "extra", "7", "--unit", ""), ("unit", "''", "must be")),
    (("price", "set", "page", "7", "--unit", "page", "--from", "soon"), ("--from", "'soon'", "must be a time")),
    (("price", "set", "page", "7", "--unit", "page", "--from", "2001-01-01"), ("effective_at", "2001-01-01", "after")),
]


def test_refused_input_is_one_line_and_changes_nothing(shop: Terminal) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and the books unchanged."""
    before = shop.books()

    for arguments, names in REFUSED:
        shop.type(*arguments).refused(2, *names)

    assert shop.books() == before
    assert "Traceback" not in shop.run("grant", "acme", "-5").err
    shop.run("grant", "acme", "-5").refused(2, "credits", "-5", "must be from 1")


def test_a_price_that_would_change_used_history_is_refused(shop: Terminal) -> None:
    """Given usage of a SKU an hour ago, when a price would begin before it, then it is refused (L7)."""
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO price (sku, version, credits_per_unit, unit, effective_at)"
            " VALUES ('search', 100, 5, 'query', now() - interval '2 days')"
        )
        connection.execute(
            "INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt,"
            " sku, quantity, credits, grants, epoch, price_version, late, occurred_at)"
            " VALUES ('ffffffff-ffff-7000-8000-000000000001', 0, 's', 'acme', 'c', 'c', 't', 1,"
            " 'search', 1, 5, '[]', 1, 100, false, now() - interval '1 hour')"
        )
        connection.execute(
            "INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity)"
            " VALUES ('acme', 'search', date_trunc('hour', now() - interval '1 hour'), 5, 1)"
        )
        earlier = connection.execute("SELECT (now() - interval '2 hours')::text").fetchone()
    assert earlier is not None
    before = shop.books()

    refused = shop.type("price", "set", "search", "7", "--unit", "query", "--from", earlier[0])

    refused.refused(2, "effective_at", "used history")
    assert shop.books() == before
    assert shop.type("price", "set", "search", "7", "--unit", "query").code == 0
    usage = shop.type("usage", "acme", "--json").json()
    assert (usage["total"], len(usage["rows"])) == ({"rows": 1, "credits": 5}, 1)


UNREACHABLE = [
    ("BILLING_DATABASE_URL", ("migrate",)),
    ("BILLING_DATABASE_URL", ("client", "add", "globex")),
    ("BILLING_DATABASE_URL", ("client", "list")),
    ("BILLING_DATABASE_URL", ("client", "show", "acme")),
    ("BILLING_DATABASE_URL", ("grant", "acme", "5")),
    ("BILLING_DATABASE_URL", ("balance", "acme")),
    ("BILLING_DATABASE_URL", ("usage", "acme")),
    ("BILLING_DATABASE_URL", ("price", "list")),
    ("BILLING_DATABASE_URL", ("price", "set", "page", "6", "--unit", "page")),
    ("BILLING_REDIS_URL", ("client", "add", "globex")),
    ("BILLING_REDIS_URL", ("client", "list")),
    ("BILLING_REDIS_URL", ("client", "show", "acme")),
    ("BILLING_REDIS_URL", ("balance", "acme")),
]


def test_an_unreachable_server_is_one_line_and_changes_nothing(shop: Terminal) -> None:
    """Given a server that does not answer, then one line names the setting and the server, and the exit code is 1."""
    before = shop.books()

    for server, arguments in UNREACHABLE:
        answer = shop.type(*arguments, **{server: NOWHERE[server]})
        answer.refused(1, server.lower(), "127.0.0.1:1", "does not answer")

    assert shop.books() == before
    for server in ("BILLING_DATABASE_URL", "BILLING_REDIS_URL"):
        shop.run("balance", "acme", **{server: NOWHERE[server]}).refused(1, server.lower(), "does not answer")


def test_a_grant_without_redis_is_kept_and_said_to_follow(shop: Terminal) -> None:
    """Given Redis away, when credits are granted, then the ledger has them, and the answer says what follows."""
    answer = shop.run("grant", "acme", "7", "--key", "later", BILLING_REDIS_URL=NOWHERE["BILLING_REDIS_URL"])

    assert answer.code == 0, answer
    assert "its bucket follows" in answer.out
    again = shop.type("grant", "acme", "7", "--key", "later", "--json").json()
    assert again["applied"] is True
    assert shop.type("balance", "acme", "--json").json()["available"] == 107


def test_a_database_that_was_never_migrated_says_so(bare: Terminal) -> None:
    """Given an empty database, then each command says in one line that it must be migrated."""
    for command in ("client add acme", "client list", "grant acme 5", "price list", "balance acme", "usage acme"):
        bare.type(*command.split()).refused(1, "billing_database_url", "billing migrate")


def test_unknown_commands_options_and_apps_are_refused(shop: Terminal) -> None:
    """Given a mistyped command, option or app, then exit code 2, a last line that names it, and no traceback."""
    for arguments, name in (
        (("blance", "acme"), "blance"),
        (("balance",), "CLIENT"),
        (("balance", "acme", "--jsn"), "--jsn"),
    ):
        answer = shop.run(*arguments)
        assert answer.code == 2
        assert name in answer.err.strip().splitlines()[-1]
        assert "Traceback" not in answer.err
    (shop.directory / "broken.py").write_text("app = (")
    (shop.directory / "plain.py").write_text("app = 1")
    shop.run("-A", "nowhere.app", "balance", "acme").refused(2, "--app", "nowhere", "cannot be imported")
    shop.run("-A", "broken", "balance", "acme").refused(2, "--app", "'broken'", "SyntaxError")
    shop.run("-A", "plain:app", "balance", "acme").refused(2, "--app", "'plain:app'", "must be a Celery app")
    shop.run("balance", "acme", BILLING_SHARDS="many").refused(2, "BILLING_SHARDS", "'many'", "must be")
    shop.run("balance", "acme", BILLING_REDIS_URL=f"http://:{SECRET}@h").refused(2, "BILLING_REDIS_URL", "must be")


def test_the_number_of_shards_may_not_change_once_clients_exist(shop: Terminal) -> None:
    """Given clients in 64 shards, when the setting says 8, then nobody is added to another place."""
    before = shop.books()

    shop.run("client", "add", "globex", BILLING_SHARDS="8").refused(2, "billing_shards", "8", "64")

    assert shop.books() == before


@pytest.mark.parametrize(
    ("configuration", "environment", "names"),
    [
        ("billing_shard=8", {}, ("billing_shard", "8", "did you mean billing_shards")),
        ("billing_shards=0", {}, ("billing_shards", "0", "must be")),
        ("", {"BILLING_LEASE_SECONDS": "soon"}, ("BILLING_LEASE_SECONDS", "'soon'", "must be")),
    ],
)
def test_a_worker_with_a_wrong_setting_does_not_start(
    shop: Terminal, configuration: str, environment: dict[str, str], names: tuple[str, ...]
) -> None:
    """Given a wrong setting, then worker and command line refuse with one clear line, and a nonzero exit code."""
    (shop.directory / "wrong.py").write_text(
        "import celery, billing\napp = celery.Celery('wrong', broker='memory://')\n"
        f"app.conf.update({configuration})\nbilling.setup(app)\n"
    )

    worker = shop.spawn("celery", "-A", "wrong", "worker", "-P", "solo", **environment)
    command = shop.run("-A", "wrong", "balance", "acme", **environment)

    assert worker.code != 0
    lines = [line for line in worker.err.splitlines() if "billing" in line.lower()]
    assert len(lines) == 1, worker.err
    assert all(name in lines[0] for name in names), lines
    assert "Traceback" not in worker.out + worker.err
    command.refused(2, *names)


def test_this_fleets_worker_refuses_a_wrong_variable_in_one_line(terminal: Terminal) -> None:
    """Given the checkout's own fleet and a bad variable, then its worker and the command line say so in one line."""
    worker = terminal.spawn("celery", "-A", "worker_tasks.app", "worker", "-P", "solo", BILLING_SHARDS="many")
    assert worker.code != 0
    assert worker.err.strip().splitlines()[-1].startswith("billing: BILLING_SHARDS: 'many': must be")
    assert "Traceback" not in worker.out + worker.err
    terminal.run("-A", "worker_tasks.app", "balance", "acme", BILLING_SHARDS="many").refused(2, "BILLING_SHARDS")
