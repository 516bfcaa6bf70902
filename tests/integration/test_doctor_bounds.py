"""Doctor takes bounded time whatever hangs, and one part that hangs, breaks or is away hides no other (L9)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.observability.doctor.examine import PARTS, Part, examine
from billing.observability.doctor.finding import Finding, Verdict, ok
from billing.task.runtime import Runtime
from tests.proxy import in_front_of

pytestmark = pytest.mark.integration


def runtime() -> Runtime:
    return Runtime(Settings)


def test_a_part_that_hangs_hides_no_other_and_is_not_begun_again() -> None:
    """Given a part that does not end, then the others are told, and it has one thread however often one looks."""
    gate, begun = threading.Event(), list[int]()

    def hangs(_: Runtime) -> Iterator[Finding]:
        begun.append(1)
        gate.wait()
        yield ok("broker", "it answers again")

    def works(_: Runtime) -> Iterator[Finding]:
        yield ok("Redis", "answers")

    parts = (Part(name="broker", check=hangs), Part(name="Redis", check=works))
    looked = runtime()
    for _ in range(3):
        found = examine(looked, seconds=0.2, parts=parts)
        assert [(finding.part, finding.verdict) for finding in found] == [
            ("broker", Verdict.FAIL),
            ("Redis", Verdict.OK),
        ]
        assert found[0].seen == "what was asked is not answered within 0.2 s"
        assert found[0].advice
    assert len(begun) == 1
    gate.set()
    assert examine(looked, seconds=60, parts=parts)[0].seen == "it answers again"


def test_a_part_that_breaks_is_a_finding_after_what_it_has_found() -> None:
    """Given a mistake of our own, then it is told, and so is what was found before, and every other part."""

    def breaks(_: Runtime) -> Iterator[Finding]:
        yield ok("Stripe", "answers")
        raise ZeroDivisionError

    def away(_: Runtime) -> Iterator[Finding]:
        yield ok("Redis", "is configured")
        raise Unreachable("it does not answer")

    found = examine(runtime(), parts=(Part(name="Stripe", check=breaks), Part(name="Redis", check=away)))
    assert [(finding.part, finding.verdict.value, finding.seen) for finding in found] == [
        ("Stripe", "ok", "answers"),
        ("Stripe", "fail", "could not be looked at (ZeroDivisionError)"),
        ("Redis", "ok", "is configured"),
        ("Redis", "fail", "it does not answer"),
    ]


def test_what_costs_calls_is_asked_once_for_a_while() -> None:
    """Given a page that looks every few seconds, then Stripe is not asked each time."""
    asked = list[int]()

    def asks(_: Runtime) -> Iterator[Finding]:
        asked.append(1)
        yield ok("Stripe", "answers")

    looked = runtime()
    for _ in range(3):
        examine(looked, parts=(Part(name="Stripe", check=asks, keep_seconds=3_600),))
    assert len(asked) == 1


def test_every_part_is_told_while_every_server_hangs(database: Settings, redis_url: str, broker_url: str) -> None:
    """Given servers that take connections and say nothing, then each part says so within its bound, and recovers."""
    with ExitStack() as stack:
        urls = (database.database_url, redis_url, broker_url)
        doors, at = zip(*(stack.enter_context(in_front_of(url)) for url in urls), strict=True)
        settings = dataclasses.replace(
            database,
            database_url=at[0],
            redis_url=at[1],
            broker_url=at[2],
            database_timeout_seconds=5.0,
            redis_timeout_seconds=1.0,
            publish_timeout_seconds=2.0,
            stripe_sandbox_url="http://127.0.0.1:9",
        )
        looked = Runtime(lambda: settings)
        stack.callback(looked.close)
        for door in doors:
            door.freeze()
        failed = {finding.part for finding in examine(looked) if finding.verdict is Verdict.FAIL}
        assert failed == {part.name for part in PARTS} - {"allowances"}
        for door in doors:
            door.reopen()
            door.cut()
        looked.close()
        assert not [finding for finding in examine(looked, seconds=60) if finding.verdict is Verdict.FAIL]
