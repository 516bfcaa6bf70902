"""`billing doctor`: each part that billing stands on is examined, and what fails says what to do."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from tests.terminal import NOWHERE, SECRET, Terminal

pytestmark = pytest.mark.integration

PARTS = {"Redis", "PostgreSQL", "clocks", "buckets", "broker", "Stripe", "reconciliation", "liveness", "laws"}


def test_doctor_finds_a_healthy_stack_healthy(shop: Terminal) -> None:
    """Given servers that answer and a migrated database, then doctor fails nothing, in words and in JSON."""
    found = shop.run("doctor", "--json").json()
    assert {finding["part"] for finding in found} == PARTS
    assert "fail" not in {finding["verdict"] for finding in found}

    words = shop.run("doctor")
    assert words.code == 0, words
    assert "noeviction" in words.out
    for url in (value for name, value in shop.environment.items() if name.endswith("_URL")):
        assert url not in words.out + json.dumps(found)


@pytest.mark.parametrize(
    ("server", "part"),
    [("BILLING_REDIS_URL", "Redis"), ("BILLING_DATABASE_URL", "PostgreSQL"), ("BILLING_BROKER_URL", "broker")],
)
def test_doctor_names_the_server_that_does_not_answer(shop: Terminal, server: str, part: str) -> None:
    """Given one dead server, then one clear line for it, the others examined all the same, and exit code 1."""
    answer = shop.type("doctor", "--json", **{server: NOWHERE[server]})

    assert answer.code == 1
    assert answer.err == ""
    assert SECRET not in answer.out
    found = json.loads(answer.out)
    failed = [finding for finding in found if finding["verdict"] == "fail" and finding["part"] == part]
    assert len(failed) == 1
    assert server.lower() in failed[0]["seen"]
    assert "127.0.0.1:1" in failed[0]["seen"]
    assert "does not answer" in failed[0]["seen"]
    assert {finding["part"] for finding in found} == PARTS


@pytest.mark.parametrize(
    ("server", "part", "words"),
    [
        ("BILLING_REDIS_URL", "Redis", "the server refuses the user or password"),
        ("BILLING_DATABASE_URL", "PostgreSQL", "the server refuses the connection (connection failed"),
        ("BILLING_BROKER_URL", "broker", "the broker refuses the login (AccessRefused"),
    ],
)
def test_doctor_tells_a_wrong_password_from_a_server_that_is_away(
    shop: Terminal, server: str, part: str, words: str
) -> None:
    """Given one wrong password, then no line says that the server does not answer, since it does."""
    parts = urlsplit(shop.environment[server])
    wrong = parts._replace(netloc=f"{parts.username or ''}:{SECRET}@{parts.hostname}:{parts.port}").geturl()
    answer = shop.type("doctor", "--json", **{server: wrong})

    assert answer.code == 1
    assert SECRET not in answer.out + answer.err
    failed = {finding["part"]: finding["seen"] for finding in json.loads(answer.out) if finding["verdict"] == "fail"}
    assert words in failed[part]
    assert "does not answer" not in str(failed)


def test_doctor_refuses_a_redis_that_forgets(shop: Terminal) -> None:
    """Given an eviction policy that may drop balances, then doctor fails and says what to set (L2)."""
    with redis.Redis.from_url(shop.environment["BILLING_REDIS_URL"]) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            answer = shop.type("doctor", "--json")
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    assert answer.code == 1
    failed = [finding for finding in json.loads(answer.out) if finding["verdict"] == "fail"]
    assert [(f["part"], f["advice"]) for f in failed] == [("Redis", "set maxmemory-policy noeviction")]
    assert "allkeys-lru" in failed[0]["seen"]


def test_doctor_says_when_the_database_was_not_migrated(bare: Terminal) -> None:
    """Given an empty database, then doctor fails, and each failure says what to run."""
    answer = bare.type("doctor", "--json")

    assert answer.code == 1, answer
    failed = [finding for finding in json.loads(answer.out) if finding["verdict"] == "fail"]
    assert failed
    assert {finding["advice"] for finding in failed} == {"run: billing migrate"}


def test_doctor_names_grants_that_do_not_reach_their_buckets(shop: Terminal) -> None:
    """Given a grant that nobody has brought into its bucket for a minute, then doctor warns; it says who does it."""
    said = "grants and changes are not in their buckets yet"

    def behind() -> tuple[str, str]:
        found = json.loads(shop.type("doctor", "--json").out)
        ((verdict, seen),) = [(finding["verdict"], finding["seen"]) for finding in found if said in finding["seen"]]
        return verdict, seen

    assert behind() == ("ok", f"0 {said}")
    shop.type("client", "add", "acme")
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO credit_grant (client_id, credits, created_at) VALUES ('acme', 5, now() - interval '90 s')"
        )
    verdict, seen = behind()
    assert verdict == "warn"
    found = re.fullmatch(rf"1 {said}, the oldest for (\d+) s", seen)
    assert found is not None, seen
    assert int(found[1]) >= 90
