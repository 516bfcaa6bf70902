"""What a webhook says, how it is signed, what its answer means, and where it may go."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from celery.utils.dispatch import Signal
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

import billing
from billing.alerts.alert import FACTS, Alert, body_of, details_of, kind_of, message_id, source_of
from billing.alerts.answer import Answer, pause_after
from billing.alerts.signals import signal_of
from billing.alerts.signing import headers_of
from billing.core.errors import InvalidValue
from billing.core.webhook_url import check_webhook_url
from billing.credits.entries import AlertEntry
from billing.observability.metrics import catalogue
from billing.schema.operations import ALERT_KINDS, TOLD_TO_CLIENTS


def an_entry(*, percent: int = 20, entry_id: str = "5-0", server: str = "abc", shard: int = 3) -> AlertEntry:
    """Return an entry of a stream."""
    return AlertEntry(
        shard=shard,
        entry_id=entry_id,
        server=server,
        client_id="acme",
        percent=percent,
        available=190,
        granted=1_000,
        occurred_ms=5,
    )


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """Given the reference vector that Standard Webhooks' own libraries are tested with, then ours is the same."""
    headers = headers_of(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1_614_265_330, UTC),
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
def test_the_standards_own_library_verifies_what_is_sent(zone: tzinfo) -> None:
    """As receivers do: with any clock's zone here; not under another secret, nor another body."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"client_id":"b\xc3\xbccher"}'
    headers = headers_of(secret, "alert_1", datetime.now(zone), body)
    assert Webhook(secret).verify(body, headers) == {"client_id": "bücher"}
    for other_secret, other_body in (("whsec_AAAA", body), (secret, body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(other_secret).verify(other_body, headers)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a", "whsec_ü"])
def test_what_is_no_secret_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        headers_of(secret, "alert_1", datetime.now(UTC), b"{}")


def test_a_message_names_its_type_its_time_and_its_data() -> None:
    alert = Alert(
        alert_id=17,
        client_id="acme",
        kind="low_balance",
        threshold_percent=20,
        available=190,
        granted=1_000,
        occurred_at=datetime(2026, 2, 2, 2, 40, tzinfo=UTC),
    )
    assert message_id(alert) == "alert_17"
    assert json.loads(body_of(alert)) == {
        "type": "billing.low_balance",
        "timestamp": "2026-02-02T02:40:00+00:00",
        "data": {
            "alert_id": 17,
            "client_id": "acme",
            "threshold_percent": 20,
            "available": 190,
            "granted": 1_000,
        },
    }
    assert body_of(alert) == body_of(alert)


@pytest.mark.parametrize(
    ("kind", "details", "data"),
    [
        ("debt", {"owed": 350, "overdraft_limit": 250}, {"owed": 350, "overdraft_limit": 250}),
        (
            "top_up_declined",
            {"request_id": 3, "credits": 500},
            {"request_id": 3, "credits": 500, "found": "why"},
        ),
        ("late_usage", {}, {"increment_id": None, "found": "why"}),
    ],
)
def test_each_kind_says_its_own_facts_to_webhook_and_signal_alike(
    kind: str, details: dict[str, int], data: dict[str, object]
) -> None:
    at = datetime(2026, 2, 2, 2, 40, tzinfo=UTC)
    alert = Alert(
        alert_id=17,
        client_id="acme",
        kind=kind,
        threshold_percent=0,
        available=0,
        granted=0,
        occurred_at=at,
        found="why",
        details=details,
    )
    message = json.loads(body_of(alert))
    assert message["type"] == f"billing.{kind}"
    assert message["data"] == {"alert_id": 17, "client_id": "acme"} | data
    signal, named = signal_of(alert)
    assert signal is getattr(billing.alerts, kind)
    assert named == {"client_id": "acme", "occurred_at": at, "alert_id": 17} | data


def test_every_kind_that_a_row_may_have_and_that_is_written_here_has_facts_and_a_signal() -> None:
    assert {*FACTS} <= {*ALERT_KINDS}
    assert {*TOLD_TO_CLIENTS} <= {*FACTS}
    assert {*ALERT_KINDS} == {*catalogue.ALERT_KINDS}
    assert {*FACTS} <= {*billing.alerts.__all__}


def test_an_entry_of_another_server_shard_or_id_is_another_source() -> None:
    entries = [an_entry(), an_entry(server="abd"), an_entry(shard=4), an_entry(entry_id="5-1")]
    assert len({source_of(entry) for entry in entries}) == 4
    assert [kind_of(entry) for entry in (an_entry(), an_entry(percent=0))] == ["low_balance", "exhausted"]
    debt = replace(an_entry(percent=0), owed=5, overdraft_limit=3)
    assert (kind_of(debt), details_of(debt)) == ("debt", {"owed": 5, "overdraft_limit": 3})
    assert details_of(an_entry()) == {}


@pytest.mark.parametrize(
    ("status", "delivered", "final"),
    [
        (200, True, True),
        (204, True, True),
        (299, True, True),
        (301, False, False),
        (400, False, False),
        (404, False, False),
        (410, False, True),
        (429, False, False),
        (500, False, False),
        (None, False, False),
    ],
)
def test_2xx_is_delivered_410_is_gone_and_anything_else_is_tried_again(
    status: int | None, *, delivered: bool, final: bool
) -> None:
    answer = Answer(status=status)
    assert (answer.delivered, answer.final) == (delivered, final)


def test_l9_pauses_grow_up_to_six_hours() -> None:
    pauses = [pause_after(attempt) for attempt in range(1, 21)]
    assert pauses[:3] == [timedelta(seconds=5), timedelta(seconds=20), timedelta(seconds=80)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(hours=6)


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.example/hook?x=1",
        "http://127.0.0.1:8000/",
        "http://localhost/hook",
        "http://[::1]:80/",
        "HTTPS://acme.example",
        "https://acme.example.:8443/",
        "https://billing_hooks-1/",
        "https://bücher.example/",
    ],
)
def test_https_and_this_very_machine_are_taken(url: str) -> None:
    assert check_webhook_url(url) == url


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://acme.example/hook", "--insecure"),
        ("http://169.254.169.254/latest", "--insecure"),
        ("http://127.0.0.1.acme.example/", "--insecure"),
        ("ftp://acme.example", "https://"),
        ("https://", "names a host"),
        ("acme.example", "https://"),
        ("https://acme.example:port/", "valid host and port"),
        ("https://acme.example:0/", "valid host and port"),
        ("https://acme.example:65536/", "valid host and port"),
        ("https://:443/", "names a host"),
        ("https://./", "valid host and port"),
        ("https://acme..example/", "valid host and port"),
        ("https://-acme.example/", "valid host and port"),
        ("https://ac%6De.example/", "valid host and port"),
        (f"https://{'x' * 64}.example/", "valid host and port"),
        (f"https://{'x' * 64}.bücher.example/", "valid host and port"),
        (f"https://{'abcdefgh.' * 32}example/", "valid host and port"),
        ("https://[::1/", "valid host and port"),
        ("https://acme.example/#part", "fragment"),
        ("https://acme example/", "without spaces"),
        ("https://acme.example/\n", "printable"),
        ("https://a.example/" + "x" * 2_000, "at most"),
        (None, "must be a URL"),
    ],
)
def test_other_urls_are_refused_in_one_line(url: object, rule: str) -> None:
    with pytest.raises(InvalidValue, match=rule) as refused:
        check_webhook_url(url)
    assert "\n" not in str(refused.value)


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidValue, match="user or password") as refused:
        check_webhook_url("https://user:hunter2@acme.example/")
    assert "hunter2" not in str(refused.value)


def test_insecure_allows_http_elsewhere_and_nothing_more() -> None:
    assert check_webhook_url("http://acme.example/", insecure=True) == "http://acme.example/"
    with pytest.raises(InvalidValue):
        check_webhook_url("ftp://acme.example/", insecure=True)


def test_the_signals_are_there_for_users() -> None:
    assert isinstance(billing.alerts.low_balance, Signal)
    assert isinstance(billing.alerts.exhausted, Signal)
    assert billing.alerts.low_balance is not billing.alerts.exhausted
