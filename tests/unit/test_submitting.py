"""What is checked when a task is submitted, and what one call may say. Messages go to memory; billed by a twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import celery
import pytest
from celery import signals
from celery.app.trace import build_tracer

import billing
from billing import BillableTask, ClientInactive, InsufficientCredits, InvalidValue, UnknownClient, UnknownSku
from billing.core.errors import Unreachable
from billing.credits.terms import ClientState
from billing.task.attachment import attachment_of
from billing.testing import BillingTwin


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app whose messages stay in memory."""
    app = celery.Celery("submitting", broker="memory://", backend="cache+memory://", set_as_current=False)
    with billing.setup(app) as made:
        yield made


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin: 5 credits a page, and 1 an extra."""
    twin = BillingTwin()
    twin.price("page", 5)
    twin.price("extra", 1)
    twin.client("acme", 100)
    with twin.billing():
        yield twin


@pytest.fixture
def published() -> Iterator[list[dict[str, Any]]]:
    """Collect the headers of what is published, and what else the broker is given."""
    seen: list[dict[str, Any]] = []

    def keep(headers: Any = None, properties: Any = None, **_: Any) -> None:
        assert not [name for name in properties if name.startswith("billing_")]
        seen.append({name: value for name, value in headers.items() if name.startswith("billing_")})

    signals.before_task_publish.connect(keep, weak=False)
    yield seen
    signals.before_task_publish.disconnect(keep)


def sold(app: celery.Celery, **options: Any) -> Any:
    """Declare a task by the decorator."""

    def body(self: Any, client_id: str | None = None, pages: int = 1, *, used: int | None = None) -> Any:
        if used is not None:
            self.usage.record(used)
        return {name: value for name, value in (self.request.headers or {}).items() if name.startswith("billing_")}

    decorate: Any = app.task(shared=False, name="sold", bind=True, base=BillableTask, **{"sku": "page", **options})
    task = decorate(body)
    app.finalize()
    return app.tasks[task.name]


# Who pays.

BAD_CLIENTS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((7,), {}, "client_id: 7: "),
    (("two words",), {}, "client_id: 'two words': "),
    ((), {}, "client_id: None: task sold (SKU 'page') has no client"),
    ((), {"billing_client": 7}, "billing_client: 7: "),
    ((), {"headers": {"billing_client": ""}}, "billing_client: '': "),
    (("acme",), {"billing_client": "brook"}, "billing_client: 'brook': names another client than the argument"),
    (("acme",), {"headers": {"billing_client": "brook"}}, "billing_client: 'brook': names another client"),
    ((), {"billing_client": "acme", "headers": {"billing_client": "brook"}}, "billing_client: 'acme': names another"),
]


@pytest.mark.parametrize(("args", "options", "refusal"), BAD_CLIENTS)
def test_a_call_that_names_no_one_payer_is_refused_when_it_is_submitted(
    app: celery.Celery,
    twin: BillingTwin,
    published: list[dict[str, Any]],
    args: tuple[Any, ...],
    options: dict[str, Any],
    refusal: str,
) -> None:
    """Given a client that is missing, no text, or named twice differently, then one line says so; nothing is sent."""
    task = sold(app)

    for submit in (task.apply_async, task.s(*args).set(**options).apply_async):
        with pytest.raises(InvalidValue) as refused:
            submit(args, **options) if submit == task.apply_async else submit()
        assert str(refused.value).startswith(refusal)
        assert "\n" not in str(refused.value)
    assert published == []


def test_the_same_call_is_refused_before_it_runs(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a sender that checks nothing, when its message is run, then it is refused, and nothing is held."""
    task = sold(app)

    for args, options, refusal in BAD_CLIENTS[:-1]:
        headers = options.get("headers") or {name: value for name, value in options.items() if name != "headers"}
        with pytest.raises(InvalidValue) as refused:
            task.apply(args=args, headers=headers).get()
        assert str(refused.value).startswith(refusal)
    assert (twin.events(), twin.holds("acme")) == ([], [])


def test_delay_is_checked_and_a_call_that_celery_refuses_is_left_to_it(app: celery.Celery, twin: BillingTwin) -> None:
    """Given arguments that do not fit, then Celery's own message is what the caller sees."""
    task = sold(app)

    with pytest.raises(InvalidValue):
        task.delay("two words")
    with pytest.raises(TypeError, match="positional"):
        task.delay("acme", 1, 2)
    with pytest.raises(TypeError, match="other"):
        task.delay("acme", other=2)


def test_a_client_by_keyword_is_a_header(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `billing_client=`, then the header names who pays, as it does where the argument says the same."""
    task = sold(app)

    task.apply_async(billing_client="acme")
    task.apply_async(("acme",), billing_client="acme")
    task.s().set(billing_client="acme").delay()

    assert [headers["billing_client"] for headers in published] == ["acme"] * 3
    task.apply(billing_client="acme").get()
    assert twin.charged("acme") == 5


# What one call says.


def test_a_call_says_its_own_quantity_and_most(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a task of 2 pages, when a call says 4, then 4 are held and charged; a most of its own is held instead."""
    task = sold(app, quantity=2, reserve={"extra": 10})
    twin.client("poor", 19)

    task.apply(("acme",), billing_quantity=4).get()
    assert twin.charged("acme") == 20
    task.apply(("acme",), billing_quantity=0).get()
    task.s("acme").set(billing_quantity=1).apply().get()
    assert twin.charged("acme") == 25
    task.apply(("acme",), {"used": 3}, billing_reserve=8).get()
    assert twin.charged("acme") == 40
    for options, required in (
        ({"billing_quantity": 4}, 30),
        ({"billing_reserve": 4}, 20),
        ({"billing_quantity": 1, "billing_reserve": {"page": 3, "extra": 7}}, 22),
    ):
        with pytest.raises(InsufficientCredits) as refused:
            task.apply(("poor",), **options).get()
        assert (refused.value.required, refused.value.available) == (required, 19)
    assert twin.holds("acme") == []


@pytest.mark.parametrize("reserve", [3, {"page": 3}, lambda client_id, pages, *, used: 3, None])
def test_l1_the_quantity_of_a_call_is_held_whatever_the_task_reserves(
    app: celery.Celery, twin: BillingTwin, reserve: Any
) -> None:
    """Given a task that holds 3, when a call says that it costs 4, then 4 are held."""
    task = sold(app, quantity=2, reserve=reserve)
    twin.client("poor", 19)

    with pytest.raises(InsufficientCredits) as refused:
        task.apply(("poor",), billing_quantity=4).get()
    assert refused.value.required == 20


@pytest.mark.parametrize("reserve", [0, 1, {"page": 0}])
def test_l1_a_call_that_reserves_less_than_it_is_charged_by_default_holds_that(
    app: celery.Celery, twin: BillingTwin, reserve: Any
) -> None:
    """Given a client with 9 credits, when a message says that 2 pages of 5 reserve less, then 10 are asked for."""
    task = sold(app, quantity=2)
    twin.client("poor", 9)

    with pytest.raises(InsufficientCredits) as refused:
        task.apply(("poor",), headers={"billing_reserve": reserve}).get()
    assert (refused.value.required, twin.events()) == (10, [])


BAD_VALUES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"billing_quantity": -1}, {}, "billing_quantity: -1: must be from 0"),
    ({"billing_quantity": "4"}, {}, "billing_quantity: '4': must be a whole number"),
    ({"billing_quantity": True}, {}, "billing_quantity: True: must be a whole number"),
    ({"billing_quantity": 1.0}, {}, "billing_quantity: 1.0: must be a whole number"),
    ({"billing_reserve": -1}, {}, "billing_reserve: -1: must be from 0"),
    ({"billing_reserve": {"extra": 2.5}}, {}, "billing_reserve['extra']: 2.5: must be a whole number"),
    ({"billing_reserve": {"Extra": 2}}, {}, "billing_reserve: 'Extra': must"),
    ({"billing_reserve": {f"s{n}": 1 for n in range(32)}}, {}, "billing_reserve: 32: must name at most 32 SKUs"),
    ({"billing_quantity": 4}, {"credits": 7}, "billing_quantity: 4: must not be given: task sold fixes its credits"),
    ({"billing_reserve": 4}, {"credits": 7}, "billing_reserve: 4: must map other SKUs"),
    ({"billing_reserve": {"page": 4}}, {"credits": 7}, "billing_reserve: {'page': 4}: must map other SKUs"),
]


@pytest.mark.parametrize(("said", "declared", "refusal"), BAD_VALUES)
def test_a_value_that_is_none_is_refused_when_submitted_and_before_it_runs(
    app: celery.Celery,
    twin: BillingTwin,
    published: list[dict[str, Any]],
    said: dict[str, Any],
    declared: dict[str, Any],
    refusal: str,
) -> None:
    """Given a bad value by keyword or by header, then one line names field, value and rule, at both ends."""
    task = sold(app, **declared)

    submits: list[Callable[[], Any]] = [
        lambda: task.apply_async(("acme",), **said),
        lambda: task.apply_async(("acme",), headers=said),
        lambda: task.s("acme").set(**said).delay(),
        lambda: task.apply(("acme",), headers=said).get(),
    ]
    for submit in submits:
        with pytest.raises(InvalidValue) as refused:
            submit()
        assert str(refused.value).startswith(refusal)
        assert "\n" not in str(refused.value)
    assert (published, twin.events(), twin.holds("acme")) == ([], [], [])


def test_an_unknown_keyword_is_refused_by_name(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a misspelt keyword, then it is named, with the one that was meant."""
    task = sold(app)

    with pytest.raises(InvalidValue, match=r"task sold: 'billing_quantiy': .* did you mean billing_quantity\?"):
        task.apply_async(("acme",), billing_quantiy=4)
    with pytest.raises(InvalidValue, match="'billing_discount'"):
        task.s("acme").set(billing_discount=4).delay()
    assert published == []


LINKS: list[Callable[[Any], Any]] = [
    lambda task: celery.chain(task.s(), task.si("acme")),
    lambda task: celery.group([celery.chain(task.s(), task.si("acme")), task.si("acme")]),
    lambda task: celery.chord([celery.chain(task.s(), task.si("acme")), task.si("acme")], task.si("acme")),
    lambda task: task.si("acme").set(billing_quantiy=4),
    lambda task: task.si("acme").set(billing_client="acme", headers={"billing_client": "brook"}),
]


@pytest.mark.parametrize("link", LINKS)
def test_l3_a_link_that_cannot_be_billed_costs_its_parent_no_charge(
    app: celery.Celery, twin: BillingTwin, link: Callable[[Any], Any]
) -> None:
    """Given a callback that begins with a call that nobody could bill, then its parent succeeds, and is charged."""
    task = sold(app)
    request = {"id": "one", "root_id": "one", "is_eager": False, "callbacks": [link(task)]}

    ended: Any = build_tracer(task.name, task, app=app)("one", ["acme"], {}, request)

    assert ended.info is None
    assert [sum(line.credits for line in event.lines) for event in twin.events()] == [5]


def test_what_is_wrong_with_a_link_is_refused_before_it_runs(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a link with a misspelt keyword, then its message says what is wrong, and no worker runs it."""
    task = sold(app)

    task.s("acme").set(billing_quantiy=4).apply_async(parent_id="one", root_id="one")
    with pytest.raises(InvalidValue, match="did you mean billing_quantity"):
        task.apply(("acme",), headers=published[0]).get()

    assert (len(published), twin.events(), twin.holds("acme")) == (1, [], [])


def test_what_a_call_says_survives_retries_and_ends_with_the_run(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a call of 4 pages that retries and is then replaced, then the retry has its headers, the other call not."""
    seen: list[Any] = []

    @app.task(shared=False, name="other", bind=True, base=BillableTask, sku="page")
    def other(self: Any, client_id: str) -> None:
        seen.append((self.request.headers or {}).get("billing_quantity"))

    @app.task(shared=False, name="first", bind=True, base=BillableTask, sku="page")
    def first(self: Any, client_id: str) -> None:
        seen.append(self.request.headers["billing_quantity"])
        if not self.request.retries:
            raise self.retry(countdown=0)
        self.replace(other.s(client_id))

    first.apply(("acme",), billing_quantity=4).get()

    assert seen == [4, 4, None]
    # An eager `replace()` returns into the body that was replaced, which then succeeds as well.
    assert sorted(sum(line.credits for line in event.lines) for event in twin.events()) == [5, 20]


def test_what_is_published_by_name_or_past_our_apply_async_carries_it_too(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `send_task`, and an override of `apply_async` without super(), then keywords and headers are carried."""

    class Own(BillableTask):
        def apply_async(self, *args: Any, **options: Any) -> Any:
            """Submit as a plain task does."""
            return celery.Task.apply_async(self, *args, **options)

    decorate: Any = app.task(shared=False, name="own", base=Own, sku="page")

    def body(client_id: str) -> None:
        """Do nothing."""

    task = decorate(body)
    task.apply_async(("acme",), billing_quantity=4)
    task.apply_async(("acme",), headers={"billing_quantity": 4})
    app.send_task("elsewhere", ("acme",), billing_quantity=4)
    by_name: Any = app.signature("elsewhere", ("acme",))
    by_name.set(billing_quantity=4).delay()

    assert [headers["billing_quantity"] for headers in published] == [4] * 4


def test_a_stamp_of_the_same_name_says_the_same(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given a canvas that is stamped with `billing_client`, then its tasks have the header, and the stamp."""
    task = sold(app)
    signature = task.s()
    signature.stamp(billing_client="acme")

    signature.apply_async()

    assert [headers["billing_client"] for headers in published] == ["acme"]


# Refused early.


def test_what_could_not_start_is_refused_when_it_is_submitted(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `refuse_early`, then who cannot pay, is unknown or suspended gets the reason at submit; nothing is held."""
    task = sold(app, refuse_early=True, quantity=lambda client_id, pages, *, used: pages)
    twin.client("poor", 9)
    twin.client("off", 100)
    twin.terms("off", state=ClientState.SUSPENDED)

    with pytest.raises(InsufficientCredits) as refused:
        task.delay("poor", 2)
    assert refused.value.args == ("poor", "page", 10, 9)
    with pytest.raises(InsufficientCredits):
        task.apply_async(("poor",), billing_quantity=2)
    with pytest.raises(UnknownClient):
        task.delay("nobody")
    with pytest.raises(ClientInactive):
        task.delay("off")
    with pytest.raises(InsufficientCredits):
        celery.group(task.s("poor", 1), task.s("poor", 2)).apply_async()
    with pytest.raises(UnknownSku):
        sold(
            billing.setup(celery.Celery("b", broker="memory://", set_as_current=False)), sku="x", refuse_early=True
        ).delay("acme")
    del published[:]
    task.delay("poor", 1)
    assert (len(published), twin.holds("poor")) == (1, [])


def test_a_task_that_does_not_ask_early_is_submitted(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given the default, then the bucket is not asked at submit: the reservation is the gate."""
    sold(app).delay("nobody")

    assert len(published) == 1


def test_with_a_countdown_an_eta_or_a_retry_the_bucket_is_not_asked(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given what starts later, or has started before, then it is submitted: credits may come, or are held already."""
    task = sold(app, refuse_early=True)
    twin.client("poor", 1)

    task.apply_async(("poor",), countdown=5)
    task.apply_async(("poor",), eta=datetime.now(UTC))
    task.apply_async(("poor",), retries=1)
    task.apply_async(("poor",), headers={"billing_at": 1})
    # A link of a canvas, which Celery publishes when its parent has ended.
    task.apply_async(("poor",), parent_id="parent")

    @app.task(shared=False, name="puts_off", bind=True)
    def puts_off(self: Any) -> None:
        # As `replace()` does, and whoever puts off a delivery whose sender has minted nothing.
        task.apply_async(("poor",), task_id=self.request.id)
        with pytest.raises(InsufficientCredits):
            task.apply_async(("poor",))

    puts_off.apply().get()

    assert len(published) == 6


def test_l9_a_server_that_is_away_does_not_keep_callers(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Redis that does not answer, then tasks are submitted, and it is asked anew after some seconds only."""
    task = sold(app, refuse_early=True)
    asked: list[str] = []

    def away(client_id: str) -> None:
        asked.append(client_id)
        message = "away"
        raise Unreachable(message)

    with monkeypatch.context() as patch:
        patch.setattr(twin.runtime.twin, "balance", away)
        for _ in range(3):
            task.delay("nobody")
        twin.advance(seconds=6)
        task.delay("nobody")
    assert (asked, len(published)) == (["nobody"] * 2, 4)
    twin.advance(seconds=6)
    with pytest.raises(UnknownClient):
        task.delay("nobody")


def test_an_app_that_is_not_set_up_is_told_so_where_the_bucket_is_asked(twin: BillingTwin) -> None:
    """Given an app without `billing.setup`, then a submit that asks fails, and says what to call."""
    task = sold(celery.Celery("bare", broker="memory://", set_as_current=False), refuse_early=True)

    with pytest.raises(billing.BillingError, match=r"call billing\.setup"):
        task.delay("acme")


@pytest.mark.parametrize("bad", [1, "yes", None])
def test_refuse_early_is_true_or_false(app: celery.Celery, bad: Any) -> None:
    """Given another value, then it is refused when the app finalizes."""
    with pytest.raises(InvalidValue, match=r"task sold: refuse_early: .*must be True or False"):
        sold(app, refuse_early=bad)


# Functions that say what a call costs.


@pytest.mark.parametrize("option", ["sku", "quantity", "reserve"])
def test_a_function_that_raises_is_one_error_and_holds_nothing(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]], option: str
) -> None:
    """Given a cost function that raises, then the call is refused in one line, when submitted or before it runs."""

    def broken(client_id: str, pages: int, *, used: int | None) -> int:
        raise KeyError("tariff\nof two lines")

    task = sold(app, refuse_early=True, **{option: broken})

    calls: list[Callable[[], Any]] = [lambda: task.delay("acme"), lambda: task.apply(("acme",)).get()]
    for call in calls:
        with pytest.raises(InvalidValue) as refused:
            call()
        assert str(refused.value).startswith(f"task sold: {option}: 'broken': must not raise: KeyError: ")
        assert "\n" not in str(refused.value)
    assert (published, twin.holds("acme"), twin.events()) == ([], [], [])
    assert attachment_of(app).lifecycle.renewal._runs == {}


def test_servers_that_refuse_connections_keep_no_caller(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given neither Redis nor PostgreSQL, as a web process sees it, then what asks early is submitted all the same."""
    app.conf.update(
        billing_redis_url="redis://127.0.0.1:1/0", billing_database_url="postgresql://billing@127.0.0.1:1/billing"
    )
    task = sold(app, refuse_early=True)

    task.delay("acme")
    task.delay("acme")

    assert len(published) == 2
    attachment_of(app).runtime.close()
