"""The signature of a usage event: HMAC-SHA256 by its sender's key over body and what is believed beside it. Pure.

Covered are, before the body, each with its length: the signature's version, the sender, the usage queue, and the two
headers that name an outbox entry. So a broker can neither write an event nor change one, nor move it to another queue,
nor have another entry forgotten. It can lose one, or send it again, which adds nothing (L3). The keys are symmetric:
who verifies could sign. What is not believed (content type, properties, other headers) is not covered.
"""

from __future__ import annotations

import base64
import functools
import hmac
from collections.abc import Sequence
from typing import Final

from billing.core.signing_keys import SigningKey

#: Its value is `1:<sender>:<base64>`.
SIGNATURE_HEADER: Final = "billing_signature"
VERSION: Final = "1"
#: How the reason of a refusal for its signature begins, and no other's does. A replay of such a letter has to be asked
#: for, so what begins so in the table is told from it alone.
REASON: Final = "signature: "
#: The longest value that is looked at, and how much of it a reason quotes (L9).
_LENGTH_MAX: Final = 200
_QUOTED_MAX: Final = 64
#: Beginnings that are remembered: of one sender more than it has shards as a rule (L9).
_FRONTS_MAX: Final = 4_096


def sign(key: SigningKey, body: bytes, *, queue: str, shard: int | None, entry_id: str | None) -> str:
    """Return the header's value for a message to a usage queue."""
    entry = entry_id or ""
    keyed = _front(key, queue, shard).copy()
    keyed.update(f"{len(entry)}:{entry},".encode("utf-8", "surrogatepass") + body)
    return f"{VERSION}:{key.sender}:{base64.b64encode(keyed.digest()).decode()}"


class Verifier:
    """Knows the keys of all senders, and says what is wrong with a message's signature."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = {key.sender: key for key in keys}

    def refusal(
        self, signature: object, body: bytes, *, queue: str, shard: int | None, entry_id: str | None
    ) -> str | None:
        """Return why a message is refused; None: one of the senders has signed exactly this."""
        if signature is None:
            return f"{REASON}there is none"
        if not isinstance(signature, str) or len(signature) > _LENGTH_MAX:
            return f"{REASON}must be text of at most {_LENGTH_MAX} characters"
        version, _, rest = signature.partition(":")
        if version != VERSION:
            return f"{REASON}version {version[:_QUOTED_MAX]!r}: must be {VERSION!r}"
        sender = rest.partition(":")[0]
        key = self._keys.get(sender)
        if key is None:
            return f"{REASON}sender {sender[:_QUOTED_MAX]!r}: is none of billing_verifying_keys"
        expected = sign(key, body, queue=queue, shard=shard, entry_id=entry_id)
        # `compare_digest` takes as long for a signature that is nearly right as for any other of its length.
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return f"{REASON}of sender {sender!r}: is not that of this event"
        return None


def verifier(keys: Sequence[SigningKey]) -> Verifier | None:
    """Return what verifies; None where no signature is asked for."""
    return Verifier(keys) if keys else None


@functools.lru_cache(maxsize=_FRONTS_MAX)
def _front(key: SigningKey, queue: str, shard: int | None) -> hmac.HMAC:
    """Return the HMAC of all that stands before the entry's id, to be copied: a process signs for few shards.

    Each part has its length in front, so that no two messages read the same.
    """
    parts = ("billing.usage", VERSION, key.sender, queue, "" if shard is None else str(int(shard)))
    text = "".join(f"{len(part)}:{part}," for part in parts)
    return hmac.new(key.secret, text.encode("utf-8", "surrogatepass"), "sha256")
