"""What can go wrong, in three kinds: try again (`Retryable`), refused for good (`Rejected`), stop (`Fatal`).

Every message is one line that names the field, the value and the rule. Foreign exceptions are mapped to these
at the edge, in the room that talks to the foreign thing.
"""

from __future__ import annotations

from billing.core.printable import printable, shown


class BillingError(Exception):
    """The root of everything that billing raises."""


class Retryable(BillingError):
    """Something was away; the same call may succeed later."""


class Rejected(BillingError):
    """The input is refused; the same call will never succeed."""


class Fatal(BillingError):
    """The process cannot do its work as it is configured."""


class NotMigrated(Fatal):
    """The database has none of billing's tables, or not all that this version needs."""


class NotAllowed(Fatal):
    """The login may not do this in the database."""


class Unreachable(Retryable):
    """A server did not answer within its bound. The message never contains a password."""


class Refusing(Unreachable):
    """A server answers, at once, and takes no writes for now: no other call need wait for it."""


class Recovering(Retryable):
    """The shard's Redis lost or may have lost something; nothing is admitted until it is rebuilt (L6)."""


class Corrupt(Recovering):
    """A client's bucket is not one that billing wrote. Nothing is admitted for this client until it is rebuilt."""


class OutboxFull(Retryable):
    """RabbitMQ has been away for so long that the shard takes no new work (L9)."""


class InvalidValue(Rejected):
    """A value breaks a rule. The text is `<field>: <value>: <rule>`: one line, whatever came from outside."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(field, value, rule)
        self.field, self.value, self.rule = field, value, rule

    def __str__(self) -> str:
        # The rule too may quote what came from outside, as the names of columns.
        return f"{printable(self.field)}: {shown(self.value)}: {printable(self.rule)}"


class UnknownClient(Rejected):
    """The client does not exist in the catalog."""

    def __init__(self, client_id: str) -> None:
        super().__init__(client_id)
        self.client_id = client_id

    def __str__(self) -> str:
        return f"client_id: {self.client_id!r}: is not a known client (see: billing client list)"


class UnknownSku(Rejected):
    """No price is in effect for the SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(sku)
        self.sku = sku

    def __str__(self) -> str:
        return f"sku: {self.sku!r}: has no price in effect (see: billing price list)"


class InsufficientCredits(Rejected):
    """The client's usable credits do not cover the reservation. Nothing was held, nothing ran.

    The arguments are positional and JSON-safe, so that the exception comes out of a Celery result backend whole.
    """

    def __init__(self, client_id: str, sku: str, required: int, available: int) -> None:
        super().__init__(client_id, sku, required, available)
        self.client_id, self.sku, self.required, self.available = client_id, sku, required, available

    def __str__(self) -> str:
        return (
            f"client {self.client_id!r} has {self.available} of the {self.required} credits "
            f"that SKU {self.sku!r} needs; nothing was started"
        )


class ParkedTooLong(InsufficientCredits):
    """The task was parked, and the credits that it needs did not come in time. Nothing was held, nothing ran."""

    def __str__(self) -> str:
        return (
            f"client {self.client_id!r} had {self.available} of the {self.required} credits "
            f"that SKU {self.sku!r} needs, and got no more in time; nothing was started"
        )


class Cancelled(Rejected):
    """The task was parked for want of credits, and somebody cancelled it. Nothing was held, nothing ran.

    The arguments are positional and JSON-safe, as those of `InsufficientCredits`.
    """

    def __init__(self, client_id: str, parked_id: int) -> None:
        super().__init__(client_id, parked_id)
        self.client_id, self.parked_id = client_id, parked_id

    def __str__(self) -> str:
        return f"parked task {self.parked_id} of client {self.client_id!r} was cancelled; nothing was started"


class ClientInactive(Rejected):
    """The client is suspended or closed. Nothing was held, nothing ran.

    The arguments are positional and JSON-safe, as those of `InsufficientCredits`.
    """

    def __init__(self, client_id: str, state: str) -> None:
        super().__init__(client_id, state)
        self.client_id, self.state = client_id, state

    def __str__(self) -> str:
        return f"client {self.client_id!r} is {self.state}; nothing was started"


class Conflict(Rejected):
    """A key that was used before came back with other content."""


class AlreadyCharged(Rejected):
    """The work that a key names was done and charged before. Nothing was held, nothing ran."""

    def __init__(self, client_id: str, key: str) -> None:
        super().__init__(client_id, key)
        self.client_id, self.key = client_id, key

    def __str__(self) -> str:
        return f"key: {self.key!r}: client {self.client_id!r} was charged for it before; nothing was started"
