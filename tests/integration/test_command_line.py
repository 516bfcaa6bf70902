"""The command line as a user types it: what it prints, its exit codes, and that nothing refused is half done."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import redis
from click.testing import CliRunner

from billing import admin
from billing.cli.main import COMMANDS, billing
from billing.embedded.stack import Stack
from billing.integration.configuration import read

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SECRET = "hunter2"
TABLES = ("client", "credit_grant", "ledger_entry", "price", "usage_history", "usage_rollup", "shard_rebuild", "fleet")
NOWHERE = {
    "BILLING_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    "BILLING_DATABASE_URL": f"postgresql://billing:{SECRET}@127.0.0.1:1/billing",
    "BILLING_BROKER_URL": f"amqp://guest:{SECRET}@127.0.0.1:1//",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Read the output of `--json`."""
        assert self.code == 0, self
        return json.loads(self.out)

    def refused(self, code: int, *names: str) -> None:
        """Check for one line on standard error with these names, no traceback, no password, and this exit code."""
        assert self.code == code, self
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        assert self.out == ""
        assert SECRET not in self.err
        for name in names:
            assert name in lines[0], (name, lines[0])


class Terminal:
    """Types commands into a shell whose servers are those of the test."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.environment = environment
        self.directory = directory

    def type(self, *arguments: str, **environment: str) -> Answer:
        """Run a command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            result = CliRunner().invoke(billing, arguments, prog_name="billing")
            admin.close(read({}))
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Answer(code=result.exit_code, out=result.stdout, err=result.stderr)

    def run(self, *arguments: str, **environment: str) -> Answer:
        """Run a command in a process of its own."""
        return self.spawn("billing.cli.main", *arguments, **environment)

    def spawn(self, module: str, *arguments: str, **environment: str) -> Answer:
        """Run a module in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT), **environment},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def books(self) -> dict[str, object]:
        """Return all that the servers remember, to compare before and after."""
        with psycopg.connect(self.environment["BILLING_DATABASE_URL"]) as connection:
            found: dict[str, object] = {
                name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall() for name in TABLES
            }
        with redis.Redis.from_url(self.environment["BILLING_REDIS_URL"]) as client:
            for key in sorted(client.keys()):
                found[str(key)] = client.dump(key)
        return found


@pytest.fixture
def terminal(redis_url: str, result_url: str, broker_url: str, database_url: str, tmp_path: Path) -> Terminal:
    """Open a terminal on fresh servers."""
    environment = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_DATABASE_URL": database_url,
        "BILLING_CONNECTION_FILE": str(tmp_path / "none.json"),
        "COLUMNS": "200",
    }
    return Terminal(environment, tmp_path)


@pytest.fixture
def bare(terminal: Terminal, stack: Stack) -> Iterator[Terminal]:
    """Open a terminal on fresh servers, with a database that was never migrated."""
    name = f"bare_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        url = stack.postgres.url_of(name)
        yield Terminal({**terminal.environment, "BILLING_DATABASE_URL": url}, terminal.directory)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    """Open a terminal on a migrated database with a client that has 100 credits, and one price."""
    for command in (
        ("migrate",),
        ("client", "add", "acme"),
        ("price", "set", "page", "5", "--unit", "page"),
        ("grant", "acme", "100", "--key", "first"),
    ):
        answer = terminal.type(*command)
        assert answer.code == 0, answer
    return terminal


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
        (("balance",), "CLIENT_ID"),
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


def test_doctor_finds_a_healthy_stack_healthy(shop: Terminal) -> None:
    """Given servers that answer and a migrated database, then doctor fails nothing, in words and in JSON."""
    found = shop.run("doctor", "--json").json()
    assert {finding["part"] for finding in found} == {"Redis", "PostgreSQL", "buckets", "broker"}
    assert "fail" not in {finding["verdict"] for finding in found}

    words = shop.run("doctor")
    assert words.code == 0, words
    assert "noeviction" in words.out
    for url in shop.environment.values():
        assert url not in words.out + json.dumps(found)


@pytest.mark.parametrize(
    ("server", "part"),
    [("BILLING_REDIS_URL", "Redis"), ("BILLING_DATABASE_URL", "PostgreSQL"), ("BILLING_BROKER_URL", "broker")],
)
def test_doctor_names_the_server_that_does_not_answer(shop: Terminal, server: str, part: str) -> None:
    """Given one dead server, then one clear line for it, the others examined all the same, and exit code 1."""
    answer = shop.run("doctor", "--json", **{server: NOWHERE[server]})

    assert answer.code == 1
    assert answer.err == ""
    assert SECRET not in answer.out
    found = json.loads(answer.out)
    failed = [finding for finding in found if finding["verdict"] == "fail" and finding["part"] == part]
    assert len(failed) == 1
    assert server.lower() in failed[0]["seen"]
    assert "127.0.0.1:1" in failed[0]["seen"]
    assert "does not answer" in failed[0]["seen"]
    assert {finding["part"] for finding in found} == {"Redis", "PostgreSQL", "buckets", "broker"}


def test_doctor_refuses_a_redis_that_forgets(shop: Terminal) -> None:
    """Given an eviction policy that may drop balances, then doctor fails and says what to set (L2)."""
    with redis.Redis.from_url(shop.environment["BILLING_REDIS_URL"]) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            answer = shop.run("doctor", "--json")
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    assert answer.code == 1
    failed = [finding for finding in json.loads(answer.out) if finding["verdict"] == "fail"]
    assert [(f["part"], f["advice"]) for f in failed] == [("Redis", "set maxmemory-policy noeviction")]
    assert "allkeys-lru" in failed[0]["seen"]


def test_doctor_says_when_the_database_was_not_migrated(bare: Terminal) -> None:
    """Given an empty database, then doctor fails, and each failure says what to run."""
    answer = bare.run("doctor", "--json")

    assert answer.code == 1, answer
    failed = [finding for finding in json.loads(answer.out) if finding["verdict"] == "fail"]
    assert failed
    assert {finding["advice"] for finding in failed} == {"run: billing migrate"}


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
