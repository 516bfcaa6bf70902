"""The servers' files of `deploy/`, given to real servers, and what `billing doctor` says of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from psycopg import sql

from billing.connections import postgres
from billing.core.settings import Settings
from billing.credits import permissions
from billing.embedded import valkey
from billing.embedded.postgres import Postgres
from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, free_port
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.redis import examine_redis
from billing.schema.migrate import migrate
from billing.schema.roles import make_roles
from billing.task.runtime import Runtime
from tests.deploy.files import DEPLOY
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROLES: Final = ("fleet", "billing_fleet", "billing_consumer", "billing_reader")


@pytest.fixture(params=["redis", "results"])
def server(request: pytest.FixtureRequest, secrets: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Run a server with its file and its users; yield its name and the address that the fleet has of it."""
    name = request.param
    file, url = {"redis": ("billing.conf", "redis_url"), "results": ("results.conf", "result_url")}[name]
    text = (DEPLOY / "redis" / file).read_text(encoding="utf-8").replace("/run/secrets", str(secrets))
    port = free_port()
    configuration = tmp_path / "server.conf"
    configuration.write_text(f"{text}\nbind {LOOPBACK}\nport {port}\ndir {tmp_path}\n", encoding="utf-8")
    child = Child.spawn(
        name,
        [valkey.binary(), configuration],
        environ=dict(os.environ),
        cwd=tmp_path,
        log=tmp_path / "server.log",
    )
    wait_until(lambda: _healthy(port), f"it is up: {child.last_lines()}")
    inside = urlsplit((secrets / url).read_text().strip())
    yield (
        name,
        urlunsplit(inside._replace(netloc=inside.netloc.replace(f"{inside.hostname}:6379", f"{LOOPBACK}:{port}"))),
    )
    child.stop()


def _healthy(port: int) -> bool:
    """Ask as the health check of the service does."""
    client = redis.Redis(host=LOOPBACK, port=port, username="health", password="none")
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()


def test_the_doctor_has_nothing_against_billings_redis(server: tuple[str, str]) -> None:
    """It keeps what it is told, and the fleet's user may do what billing does and nothing else."""
    name, url = server
    with redis.Redis.from_url(url) as client:
        if name == "redis":
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
            found = list(examine_redis(Runtime(lambda: Settings(redis_url=url, result_url="redis://elsewhere:1/0"))))
            assert [finding for finding in found if finding.verdict is not Verdict.OK] == []
        else:
            client.set("celery-task-meta-1", b"{}", ex=60)
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.config_get("*")
    nobody = redis.Redis(host=urlsplit(url).hostname or "", port=urlsplit(url).port or 0)
    with nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()


def test_the_user_of_the_file_has_what_billing_asks_for() -> None:
    text = (DEPLOY / "redis" / "billing.acl.in").read_text(encoding="utf-8")
    assert f"user billing on >PASSWORD {permissions.rules()} +client|setinfo\n" in text


def test_the_fleets_login_may_add_to_the_history_and_not_change_it(
    postgres_server: Postgres, database_url: str, secrets: Path, tmp_path: Path
) -> None:
    """Given the script that the database is made with, then `billing migrate --roles`: L7 holds against the fleet."""
    owner = urlsplit(database_url)
    environment = {
        **os.environ,
        "POSTGRES_USER": owner.username or "",
        "POSTGRES_DB": owner.path.strip("/"),
        "FLEET_PASSWORD_FILE": str(secrets / "fleet_password"),
        "PGHOST": owner.hostname or "",
        "PGPORT": str(owner.port),
        "PGPASSWORD": owner.password or "",
    }
    try:
        subprocess.run([DEPLOY / "postgres" / "10-logins.sh"], env=environment, check=True, timeout=60)
        settings = Settings(database_url=database_url)
        migrate(settings)
        engine = postgres.engine(settings)
        with engine.begin() as connection:
            make_roles(connection)
        engine.dispose()
        password = (secrets / "fleet_password").read_text().strip()
        with psycopg.connect(database_url, user="fleet", password=password) as fleet:
            assert fleet.execute("SELECT count(*) FROM usage_history").fetchone() == (0,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                fleet.execute("DELETE FROM usage_history")
    finally:
        _drop(postgres_server, database_url)


def _drop(server: Postgres, database_url: str) -> None:
    """Leave the session's server without these roles."""
    for url in (database_url, server.url_of("postgres")):
        with psycopg.connect(url, autocommit=True) as connection:
            known = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(ROLES)]).fetchall()
            for (role,) in known:
                name = sql.Identifier(str(role))
                connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
                if url != database_url:
                    connection.execute(sql.SQL("DROP ROLE {}").format(name))
