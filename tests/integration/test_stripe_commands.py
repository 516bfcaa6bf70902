"""`billing client link`, `billing stripe setup`, `billing sync …` and doctor's look at Stripe, as a user types them."""

from __future__ import annotations

import json

import pytest

from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.syncing import METER, Syncing, TestClock
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

LIVE_KEY = "sk_live_hunter2hunter2"
TEST_KEY = "rk_test_hunter2hunter2"


@pytest.fixture
def reporting(shop: Terminal, stripe_sandbox: SandboxControl) -> Terminal:
    """Open a shop whose reports go to the stand-in."""
    return Terminal({**shop.environment, "BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url}, shop.directory)


def use(reporting: Terminal, syncing: Syncing, client_id: str, credits: int) -> None:
    """Add a client with usage."""
    assert reporting.type("client", "add", client_id).code == 0
    syncing.use(client_id, credits)


@pytest.fixture
def syncing(engine: object, database: object) -> Syncing:
    return Syncing(engine=engine, settings=database, clock=TestClock(SystemClock().now()))  # type: ignore[arg-type]


def test_usage_goes_from_a_plan_to_stripe_and_is_confirmed(
    reporting: Terminal, syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Given a linked client and one without a link, then one is billed, the other is named until it is linked."""
    use(reporting, syncing, "acme", 12)
    use(reporting, syncing, "globex", 30)
    (made,) = reporting.type("stripe", "setup", "--price", "0.5", "--json").json()["meters"]
    assert (made["event_name"], made["made"]) == (METER, ["meter", "product", "price"])
    assert reporting.type("stripe", "setup", "--json").json()["meters"] == [{**made, "made": []}]
    customers = [_customer(stripe_sandbox, name) for name in ("acme", "globex")]

    linked = {"client_id": "acme", "customer_id": customers[0]}
    assert reporting.type("client", "link", "acme", customers[0], "--json").json() == {**linked, "created": True}
    assert reporting.type("client", "link", "acme", customers[0], "--json").json() == {**linked, "created": False}
    assert reporting.type("client", "show", "acme", "--json").json()["stripe_customer"] == customers[0]
    waits = reporting.type("sync", "plan", "--json").json()
    assert (waits["units"], list(waits["waiting"].values())) == (0, [1])
    assert reporting.type("client", "link", "acme", "--subscribe", "--backdate-hours", "2").code == 0
    assert reporting.type("sync", "plan", "--json").json()["units"] == 12
    waiting = reporting.type("sync", "status", "--json").json()
    assert waiting["unlinked"] == {"credits": 30, "clients": 1, "names": ["globex"], "reasons": []}
    assert waiting["unplanned"]["credits"] == 0
    assert "30 credits of 1 clients: globex" in reporting.type("sync", "status").out

    pushed = reporting.type("sync", "push", "--json").json()
    assert (pushed["sent"], pushed["stopped"]) == (1, None)
    assert stripe_sandbox.total(customers[0], METER) == 12
    backdated = "--subscribe", "--backdate-hours", "2"
    assert reporting.type("client", "link", "globex", customers[1], *backdated).code == 0
    assert "not planned yet: 30 credits" in reporting.type("sync", "status").out
    assert "planned 1 increments with 30 units" in reporting.type("sync", "plan").out
    assert "sent 1 increments" in reporting.type("sync", "push").out
    assert "confirmed 2 of 2" in reporting.type("sync", "confirm").out

    states = {found["state"]: found for found in reporting.type("sync", "status", "--json").json()["states"]}
    assert (states["confirmed"]["increments"], states["confirmed"]["units"], states["confirmed"]["clients"]) == (
        2,
        42,
        2,
    )
    assert sum(found["increments"] for found in states.values()) == 2


def test_a_link_stays(reporting: Terminal, stripe_sandbox: SandboxControl) -> None:
    """Given a link, then neither its client nor its customer gets another one, and the refusal is one line."""
    assert reporting.type("client", "add", "globex").code == 0
    one, two = _customer(stripe_sandbox, "one"), _customer(stripe_sandbox, "two")
    assert reporting.type("client", "link", "acme", one).code == 0

    reporting.type("client", "link", "acme", two).refused(2, "customer_id", repr(two), repr(one), "--replace")
    reporting.type("client", "link", "globex", one).refused(2, "customer_id", repr(one), "'acme'")
    reporting.type("client", "link", "nobody", one).refused(2, "client_id", "'nobody'")
    for wrong in ("acme", "cus_", "cus_ä", "cus_" + "a" * 252, "cus_a b"):
        reporting.type("client", "link", "globex", wrong).refused(2, "customer_id", "cus_…")
    assert reporting.type("client", "show", "globex", "--json").json()["stripe_customer"] is None


def test_a_push_that_nobody_answers_says_so_and_exits_with_1(reporting: Terminal, syncing: Syncing) -> None:
    use(reporting, syncing, "acme", 12)
    assert reporting.type("client", "link", "acme", "cus_one", "--unchecked").code == 0
    monthly = {"BILLING_STRIPE_PERIODS": "calendar"}
    assert reporting.type("sync", "plan", **monthly).code == 0

    for command in (("sync", "push"), ("stripe", "setup"), ("client", "link", "acme", "cus_one")):
        answer = reporting.type(*command, BILLING_STRIPE_SANDBOX_URL="http://127.0.0.1:1")
        answer.refused(1, "Stripe", "'http://127.0.0.1:1'", "does not answer")

    pushed = reporting.type("sync", "push")
    assert pushed.code == 1
    assert METER in pushed.err
    assert "billing stripe setup" in pushed.err
    assert reporting.type("sync", "status", "--json").json()["states"][0]["increments"] == 1


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        (LIVE_KEY, "billing_stripe_live"),
        ("sk_hunter2", "must be a Stripe secret"),
        (TEST_KEY + "!", "must be a Stripe"),
    ],
)
def test_a_wrong_key_is_refused_in_one_line_that_does_not_show_it(reporting: Terminal, key: str, rule: str) -> None:
    """Given a live key that nobody allowed, or a mistyped one, then nothing is called."""
    answer = reporting.run("sync", "push", BILLING_STRIPE_API_KEY=key)

    answer.refused(2, rule)
    assert "hunter2" not in answer.err


def test_doctor_looks_at_key_meter_links_and_increments(
    reporting: Terminal, syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    def seen() -> dict[str, str]:
        found = reporting.type("doctor", "--json").json()
        return {finding["seen"]: finding["verdict"] for finding in found if finding["part"] == "Stripe"}

    key = f"no key: reports go to the stand-in at {stripe_sandbox.url}"
    assert seen() == {key: "ok", f"has no active meter {METER}": "warn"}
    assert reporting.type("stripe", "setup").code == 0
    meter = f"meter {METER} adds up whole events under our keys"
    assert seen() == {key: "ok", meter: "ok"}
    use(reporting, syncing, "acme", 12)
    assert seen() == {key: "ok", meter: "ok", "unlinked: 12 credits of 1 clients (acme)": "warn"}

    away = reporting.type("doctor", "--json", BILLING_STRIPE_SANDBOX_URL="http://127.0.0.1:1").json()
    assert [f["verdict"] for f in away if "does not answer" in f["seen"]] == ["warn"]


@pytest.mark.parametrize("wrong", [{"default_aggregation": {"formula": "count"}}, {"event_time_window": "hour"}])
def test_doctor_and_push_refuse_a_meter_that_counts_otherwise(
    reporting: Terminal, stripe_sandbox: SandboxControl, wrong: dict[str, object]
) -> None:
    """Given a meter that overwrites, or counts events, then nothing is sent to it."""
    settings = {"display_name": "x", "event_name": METER, "default_aggregation": {"formula": "sum"}, **wrong}
    with Gateway(_settings(stripe_sandbox)) as gateway:
        gateway.session.client.v1.billing.meters.create(settings)  # type: ignore[arg-type]

    answer = reporting.type("doctor", "--json")

    assert answer.code == 1
    failed = [finding for finding in json.loads(answer.out) if finding["verdict"] == "fail"]
    assert [finding["part"] for finding in failed] == ["Stripe"]
    assert "billing_stripe_meter" in failed[0]["seen"]
    reporting.type("stripe", "setup").refused(1, "billing_stripe_meter", METER)


def test_what_stripe_dropped_later_is_read_by_hand(
    reporting: Terminal, syncing: Syncing, stripe_sandbox: SandboxControl
) -> None:
    """Given a customer that Stripe does not know, then its increment is rejected, once."""
    assert reporting.type("sync", "errors").out == "read 0 reports: 0 increments rejected, 0 quarantined\n"
    use(reporting, syncing, "acme", 12)
    assert reporting.type("stripe", "setup").code == 0
    assert reporting.type("client", "link", "acme", "cus_nobody", "--unchecked").code == 0
    months = {"BILLING_STRIPE_PERIODS": "calendar"}
    assert reporting.type("sync", "plan", "--json", **months).json()["increments"] == 1
    assert reporting.type("sync", "push", "--json").json()["sent"] == 1
    stripe_sandbox.advance(120)

    first, again = reporting.type("sync", "errors", "--json").json(), reporting.type("sync", "errors", "--json").json()

    assert (first["read"], first["rejected"], again["rejected"]) == (1, 1, 0)
    assert "1           acme     rejected" in reporting.type("sync", "status").out
    away = {"BILLING_STRIPE_SANDBOX_URL": "http://127.0.0.1:1"}
    reporting.type("sync", "errors", **away).refused(1, "does not answer")


def test_no_command_or_worker_shows_the_key(reporting: Terminal) -> None:
    """Given a key in an app's configuration, then `celery report` and `inspect conf` show its kind at most."""
    (reporting.directory / "secret_app.py").write_text(
        "import celery, billing\napp = celery.Celery('secret', broker='memory://')\n"
        f"app.conf.update(billing_stripe_api_key={TEST_KEY!r})\nbilling.setup(app)\n"
    )
    (reporting.directory / "inspecting.py").write_text(
        "from secret_app import app\nfrom celery.worker.control import conf\nfrom types import SimpleNamespace\n"
        "from billing.integration.configuration import read_settings\nread_settings(app)\n"
        "print(conf(SimpleNamespace(app=app)))\n"
        "assert read_settings(app).stripe_api_key.endswith('hunter2')\nprint(read_settings(app))\n"
    )

    answers = [reporting.spawn("celery", "-A", "secret_app", "report"), reporting.spawn("inspecting")]

    for answer in answers:
        assert answer.code == 0, answer
        assert "hunter2" not in answer.out + answer.err
        assert "billing_stripe_api_key" in answers[1].out


def _settings(stripe_sandbox: SandboxControl) -> Settings:
    return Settings(stripe_sandbox_url=stripe_sandbox.url)


def _customer(stripe_sandbox: SandboxControl, client_id: str) -> str:
    with Gateway(_settings(stripe_sandbox)) as gateway:
        return gateway.create_customer(client_id)
