"""A signature covers all that a consumer believes of a message, and holds for nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.signing_keys import SigningKey
from billing.events.signing import REASON, Verifier, sign, verifier
from tests.amqp import event_body

OWN = SigningKey(sender="workers", secret=b"k" * 32)
OTHER = SigningKey(sender="others", secret=b"o" * 32)
BODY = event_body("acme", "one", credits_=3)


@dataclasses.dataclass(frozen=True)
class Message:
    """What a consumer gets."""

    body: bytes = BODY
    queue: str = "billing.usage.0"
    shard: int | None = 3
    entry_id: str | None = "17-0"

    def beside(self) -> dict[str, Any]:
        """Return what it believes beside the body."""
        return {"queue": self.queue, "shard": self.shard, "entry_id": self.entry_id}


GENUINE = Message()
SIGNATURE = sign(OWN, BODY, **GENUINE.beside())


def refusal(signature: object, message: Message = GENUINE) -> str | None:
    """Return what a consumer that knows both senders says."""
    return Verifier([OWN, OTHER]).refusal(signature, message.body, **message.beside())


def test_what_a_sender_signed_is_taken_however_often_it_comes() -> None:
    assert [refusal(SIGNATURE) for _ in range(3)] == [None] * 3


def test_it_is_the_hmac_of_rfc_2104_over_what_the_record_says() -> None:
    """Another language's sender, or reader, makes the same."""
    covered = b"13:billing.usage,1:1,7:workers,15:billing.usage.0,1:3,4:17-0," + BODY
    assert SIGNATURE.startswith("1:workers:")
    assert b64decode(SIGNATURE.removeprefix("1:workers:")) == hmac.new(OWN.secret, covered, hashlib.sha256).digest()


@pytest.mark.parametrize(
    "message",
    [
        Message(body=event_body("acme", "one", credits_=4)),
        Message(body=event_body("zebra", "one", credits_=3)),
        Message(body=BODY + b" "),
        Message(body=b""),
        Message(queue="billing.usage.1"),
        Message(shard=4),
        Message(shard=None),
        Message(entry_id="18-0"),
        Message(entry_id=None),
        Message(entry_id="17-0," + BODY[:20].decode(), body=BODY[20:]),
    ],
    ids=["one credit more", "another client", "a byte more", "no body", "another queue", "another shard", "no shard",
         "another entry", "no entry", "a byte of the body moved into a header"],
)  # fmt: skip
def test_a_message_that_differs_anywhere_is_refused(message: Message) -> None:
    assert refusal(SIGNATURE, message) == f"{REASON}of sender 'workers': is not that of this event"


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "there is none"),
        (b"1:workers:x", "must be text"),
        (7, "must be text"),
        ("1:" + "x" * 300, "must be text of at most"),
        ("", "version '': must be '1'"),
        (SIGNATURE.replace("1:", "2:", 1), "version '2': must be '1'"),
        ("1", "sender ''"),
        (SIGNATURE.replace("workers", "mallory"), "sender 'mallory': is none of billing_verifying_keys"),
        (SIGNATURE.replace("workers", "others"), "of sender 'others': is not that of this event"),
        (sign(OTHER, BODY, **GENUINE.beside()).replace("others", "workers"), "of sender 'workers': is not"),
        (sign(SigningKey(sender="workers", secret=b"x" * 32), BODY, **GENUINE.beside()), "of sender 'workers': is not"),
        (SIGNATURE[:-1], "of sender 'workers': is not"),
        (SIGNATURE + "=", "of sender 'workers': is not"),
        ("1:workers:\ud800", "of sender 'workers': is not"),
        ("1:workers:", "of sender 'workers': is not"),
    ],
)
def test_any_other_signature_is_refused_with_its_reason(signature: object, reason: str) -> None:
    assert str(refusal(signature)).startswith(REASON + reason)


def test_without_keys_nobody_verifies() -> None:
    assert verifier(()) is None


@given(st.one_of(st.none(), st.text(), st.binary(), st.integers(), st.text().map(lambda rest: f"1:workers:{rest}")))
def test_nothing_a_stranger_sends_raises_or_passes(signature: object) -> None:
    assert str(refusal(signature)).startswith(REASON)


_TEXT = st.text(st.characters(codec=None), max_size=12)


@given(*[st.builds(Message, st.binary(max_size=12), _TEXT, st.none() | st.integers(0, 99), st.none() | _TEXT)] * 2)
def test_no_two_messages_have_one_signature(one: Message, two: Message) -> None:
    """What is covered says where each part ends, so nothing moves from one part into the next."""
    differ = (one.body, one.queue, one.shard, one.entry_id or "") != (
        two.body,
        two.queue,
        two.shard,
        two.entry_id or "",
    )
    assert (sign(OWN, one.body, **one.beside()) != sign(OWN, two.body, **two.beside())) == differ
