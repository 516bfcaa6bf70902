"""What was refused for its signature: no replay gets around it, no unsigned copy spoils it, and doctor names it."""

from __future__ import annotations

import dataclasses

import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.events.signing import REASON
from billing.fulfillment.consumer import Consumer
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.signing import examine_signing
from billing.observability.liveness.noting import Presence
from billing.task.runtime import Runtime
from tests.amqp import event_body
from tests.integration.consuming import events, prepare, query, rows, send, usage_log
from tests.integration.lettering import outcomes, states
from tests.integration.signing import ASKING, consuming, reasons, signing, until_seen

pytestmark = pytest.mark.integration


def test_doctor_says_where_senders_sign_and_a_consumer_does_not_ask(broker_url: str, database_url: str) -> None:
    settings = prepare(broker_url, database_url)

    def found(own: Settings, verdict: Verdict) -> list[str]:
        runtime = Runtime(lambda: own)
        seen = [finding.seen for finding in examine_signing(runtime) if finding.verdict is verdict]
        runtime.close()
        return seen

    def note(own: Settings, signed: int) -> None:
        runtime = Runtime(lambda: own)
        pressure = dataclasses.replace(Consumer(own, usage_log(own)).pressure(), signed_unasked=signed)
        Presence(runtime, "fulfillment@test", [0, 1], lambda: pressure).step()
        runtime.close()

    note(settings, 0)
    assert found(settings, Verdict.WARN) == found(settings, Verdict.FAIL) == []
    note(settings, 3)
    assert found(settings, Verdict.WARN) == [
        "events come signed, and fulfillment@test asks for no signature: anybody's are charged"
    ]
    asking = dataclasses.replace(settings, **ASKING)
    note(asking, 0)
    assert found(asking, Verdict.WARN) == []
    assert found(asking, Verdict.OK) == [
        "this process signs as workers; its consumer asks for one of workers, shop",
        "1 consumers ask for a signature",
    ]
    send(signing(settings, None), events(1))
    with consuming(asking) as consumer:
        until_seen(consumer, 3)
    assert found(asking, Verdict.FAIL) == ["3 usage events were refused for their signature: they may be forged"]


def test_a_replay_is_no_way_around_the_signature(broker_url: str, database_url: str, redis_url: str) -> None:
    """A forged letter is written only where --unverified says so, also once it was refused for something else."""
    settings = prepare(broker_url, database_url, redis_url=redis_url, **ASKING)
    mine, strange = event_body("ada", "forged"), event_body("brook", "of nobody yet")
    send(signing(settings, None), [("ada", mine), ("brook", strange)])
    with consuming(settings) as consumer:
        until_seen(consumer, 2)
    ids = {bytes(body): letter_id for letter_id, body in query(settings, "SELECT letter_id, body FROM dead_letter")}

    done = admin.replay_dead_letters(settings)
    assert (done.letters, done.left) == ([], 2)
    with pytest.raises(
        InvalidValue, match=r"letter_id: \d+: was refused for its signature: it may be forged; give --unv"
    ):
        admin.replay_dead_letters(settings, list(ids.values()))
    assert outcomes(admin.replay_dead_letters(settings, [ids[strange]], unverified=True)) == [(ids[strange], "refused")]
    assert f"{REASON}not verified; client_id: 'brook': is not a known client" in reasons(settings)
    admin.add_client(settings, "brook")
    assert admin.replay_dead_letters(settings).left == 2
    assert rows(settings) == 0

    done = admin.replay_dead_letters(settings, unverified=True)
    assert sorted(outcomes(done)) == sorted((letter_id, "written") for letter_id in ids.values())
    assert query(settings, "SELECT DISTINCT remark FROM dead_letter") == [("written; its signature was not verified",)]
    assert rows(settings) == 2
    admin.close(settings)


def test_an_unsigned_copy_does_not_make_a_signed_letter_doubtful_and_a_signed_one_clears_it(
    broker_url: str, database_url: str, redis_url: str
) -> None:
    """Whoever holds the broker cannot have an honest letter left out; bytes that a sender signed are that sender's."""
    settings = prepare(broker_url, database_url, redis_url=redis_url, **ASKING)
    first, second = event_body("brook", "1"), event_body("brook", "2")
    with consuming(settings) as consumer:
        send(settings, [("brook", first)])
        until_seen(consumer, 1)
        send(signing(settings, None), [("brook", first), ("brook", second)])
        until_seen(consumer, 3)
        assert sorted(reason.startswith(REASON) for reason in reasons(settings)) == [False, True]
        send(settings, [("brook", second)])
        until_seen(consumer, 4)
    assert {refusals for _, refusals in states(settings).values()} == {2}
    admin.add_client(settings, "brook")
    done = admin.replay_dead_letters(settings)
    assert [outcome for _, outcome in outcomes(done)] == ["written", "written"]
    assert done.left == 0
    admin.close(settings)
