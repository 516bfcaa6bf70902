"""`billing client webhook` and `billing alerts list` as a user types them; a secret is printed once, and only then."""

from __future__ import annotations

import json

import pytest

from billing import admin
from billing.alerts.recording import record
from billing.integration.configuration import read
from billing.task.runtime import Runtime
from tests.contract.making import a_hold, a_run
from tests.terminal import SECRET, Terminal

pytestmark = pytest.mark.integration

URL = "https://acme.example/hook"


def run_dry(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the shop's client spend nine tenths and be refused more, and record the alerts."""
    with monkeypatch.context() as patch:
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        settings = read({})
    runtime = Runtime(lambda: settings)
    for number, credits_ in enumerate((90, 500)):
        runtime.buckets.reserve(a_hold(a_run("acme", f"run-{number}"), credits_))
    assert record(runtime) == 2
    runtime.close()
    admin.close(settings)


def test_a_webhooks_secret_is_printed_once(shop: Terminal) -> None:
    made = shop.type("client", "webhook", "acme", URL)
    secret = made.out.strip().rpartition(" ")[2]
    assert made.code == 0
    assert made.out.startswith(f"webhook of acme: {URL}\nsecret, shown this once: whsec_")
    for command in (
        ("client", "webhook", "acme", URL),
        ("client", "webhook", "acme"),
        ("client", "show", "acme", "--json"),
        ("client", "list", "--json"),
        ("alerts", "list", "--json"),
    ):
        answer = shop.type(*command)
        assert answer.code == 0, answer
        assert secret not in answer.out + answer.err, command
        assert "whsec_" not in answer.out + answer.err, command


def test_a_secret_is_rotated_with_and_without_a_new_url(shop: Terminal) -> None:
    secrets = [shop.type("client", "webhook", "acme", URL, "--json").json()["secret"]]
    secrets.append(shop.type("client", "webhook", "acme", "--rotate", "--json").json()["secret"])
    moved = shop.type("client", "webhook", "acme", "https://acme.example/new", "--rotate", "--json").json()
    secrets.append(moved["secret"])
    assert len(set(secrets)) == 3
    assert all(len(secret) == len("whsec_") + 44 for secret in secrets)
    assert shop.type("client", "webhook", "acme").out == "webhook of acme: https://acme.example/new\n"


def test_a_webhook_is_removed_once(shop: Terminal) -> None:
    shop.type("client", "webhook", "acme", URL)
    assert shop.type("client", "webhook", "acme", "--remove").out == "webhook of acme: removed\n"
    assert shop.type("client", "webhook", "acme", "--remove", "--json").json() == {
        "client_id": "acme",
        "removed": False,
    }
    assert shop.type("client", "webhook", "acme").out == "webhook of acme: has none\n"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("client", "webhook", "acme", "http://acme.example/"), ("url", "--insecure")),
        (("client", "webhook", "acme", "acme.example"), ("url", "https://")),
        (("client", "webhook", "acme", ""), ("url", "https://")),
        (("client", "webhook", "acme", "", "--rotate"), ("url", "https://")),
        (("client", "webhook", "acme", "", "--remove"), ("--remove", "neither")),
        (("client", "webhook", "acme", f"https://user:{SECRET}@acme.example/"), ("url", "user or password")),
        (("client", "webhook", "nobody", URL), ("nobody", "not a known client")),
        (("client", "webhook", "nobody"), ("nobody", "not a known client")),
        (("client", "webhook", "nobody", "--remove"), ("nobody", "not a known client")),
        (("client", "webhook", "nobody", "--rotate"), ("nobody", "not a known client")),
        (("client", "webhook", "acme", "--rotate"), ("acme", "has no webhook")),
        (("client", "webhook", "acme", URL, "--remove"), ("--remove", "neither")),
        (("alerts", "list", "--client", "nobody"), ("nobody", "not a known client")),
    ],
)
def test_what_is_wrong_is_one_line(shop: Terminal, command: tuple[str, ...], names: tuple[str, ...]) -> None:
    shop.type(*command).refused(2, *names)


def test_insecure_allows_http(shop: Terminal) -> None:
    assert shop.type("client", "webhook", "acme", "http://acme.example/", "--insecure").code == 0


def test_alerts_are_listed_newest_first(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given two alerts, one of which waits for its webhook, then the list says so, as a table and as JSON."""
    assert shop.type("alerts", "list", "--json").json() == []
    run_dry(shop, monkeypatch)
    listed = shop.type("alerts", "list", "--json").json()
    assert [(row["client_id"], row["kind"], row["threshold_percent"], row["delivery"]) for row in listed] == [
        ("acme", "exhausted", 0, "none"),
        ("acme", "low_balance", 20, "none"),
    ]
    assert json.dumps(listed) == json.dumps(shop.type("alerts", "list", "--client", "acme", "--json").json())
    assert shop.type("alerts", "list", "--pending", "--json").json() == []
    assert len(shop.type("alerts", "list", "--limit", "1", "--json").json()) == 1
    table = shop.type("alerts", "list").out
    assert "low_balance" in table
    assert "exhausted" in table


def test_a_database_that_does_not_answer_is_one_line(shop: Terminal) -> None:
    nowhere = {"BILLING_DATABASE_URL": f"postgresql://billing:{SECRET}@127.0.0.1:1/billing"}
    shop.type("alerts", "list", **nowhere).refused(1, "does not answer")
    shop.type("client", "webhook", "acme", URL, **nowhere).refused(1, "does not answer")
