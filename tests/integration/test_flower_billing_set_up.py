"""The billing pages in a Flower of another set-up: with a password, a provider, a prefix, no billing, no tables."""

from __future__ import annotations

import re

import psycopg
import pytest

from billing.embedded.stack import Stack
from tests.fleet.harness import Fleet
from tests.integration.billing_pages import addresses, page
from tests.integration.watching import flower_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_every_address_refuses_whom_flower_refuses(running_fleet: Fleet) -> None:
    """By password: 401. By a provider: to its login. The answer has nothing of the page."""
    running_fleet.client("secretive", 10)
    with flower_of(running_fleet, "guarded", environment={"FLOWER_BASIC_AUTH": "operator:secret"}) as http:
        for address in addresses():
            for auth in (None, ("operator", "wrong"), ("", "")):
                refused = http.get(address, auth=auth)
                assert (refused.status_code, refused.text) == (401, "Access denied"), address
                assert refused.headers["Cache-Control"] == "no-store"
            assert http.get(address, auth=("operator", "secret")).status_code == 200, address
        assert "secretive" in http.get("/billing/clients", auth=("operator", "secret")).text

    provider = ("--auth=.*@example.com", "--auth_provider=flower.views.auth.GoogleAuth2LoginHandler")
    with flower_of(running_fleet, "provided", *provider) as http:
        for address in addresses():
            refused = http.get(address)
            assert refused.status_code == 302, address
            assert refused.headers["Location"].startswith("/login?next="), address
            assert "secretive" not in refused.text
            assert http.get(address, headers={"Cookie": "user=someone@example.com"}).status_code == 302


def test_below_a_prefix_every_link_has_it(running_fleet: Fleet) -> None:
    running_fleet.client("below", 10)
    with flower_of(running_fleet, "prefixed", "--url_prefix=watch", prefix="/watch") as http:
        for address in addresses():
            shown = http.get(f"/watch{address}")
            assert shown.status_code == 200, address
            links = re.findall(r'(?:href|src|action|data-source)="(/[^"]*)"', shown.text)
            assert [link for link in links if not link.startswith("/watch/")] == [], address


def test_an_app_without_billing_is_told_so(running_fleet: Fleet) -> None:
    (running_fleet.directory / "unbilled_app.py").write_text(
        f"import celery\napp = celery.Celery('unbilled', broker={running_fleet.app.conf.broker_url!r})\n"
    )
    with flower_of(running_fleet, "unbilled", app="unbilled_app") as http:
        for address in addresses():
            if "static" not in address:
                assert "bills nothing yet: call billing.setup(app)" in page(http, address)
        assert http.get("/tasks").status_code == 200


def test_a_database_without_tables_is_named_with_what_to_run(running_fleet: Fleet, stack: Stack) -> None:
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE untouched")
    try:
        there = {"BILLING_DATABASE_URL": stack.postgres.url_of("untouched")}
        with flower_of(running_fleet, "empty", environment=there) as http:
            for address in ("/billing/clients", "/billing/client?id=acme", "/billing/parked", "/billing/dead-letters"):
                assert "run: billing migrate" in page(http, address), address
            wait_until(lambda: "run: billing migrate" in page(http, "/billing"), "the fleet was read")
    finally:
        with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE untouched WITH (FORCE)")
