"""Faults of what is signed and verified: whose events are charged where signatures are asked for."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_signature = faults("billing/events/signing.py", "tests/unit/test_signing.py")
_keys = faults("billing/core/signing_keys.py", "tests/unit/test_signing_keys.py")
_refusals = faults("billing/fulfillment/refusals.py", "tests/unit/test_refusals.py")
_replay = faults("billing/fulfillment/replaying.py", "tests/integration/test_signed_letters.py")
_receiving = faults("billing/fulfillment/receiving.py", "tests/integration/test_signed_events.py")
_tasks = faults("billing/integration/tasks.py", "tests/unit/test_drain_task.py")

SIGNATURES: Final[tuple[Mutant, ...]] = (
    _signature("an unsigned event is charged", "L3", 'return f"{REASON}there is none"', "return None"),
    _signature(
        "any signature will do",
        "L3",
        'if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):',
        "if len(expected) != len(signature):",
    ),
    _signature(
        "a signature does not cover the body",
        "L3",
        'f"{len(entry)}:{entry},".encode("utf-8", "surrogatepass") + body',
        'f"{len(entry)}:{entry},".encode("utf-8", "surrogatepass")',
    ),
    _signature("a signature does not cover the queue", "L3", "VERSION, key.sender, queue,", "VERSION, key.sender,"),
    _signature("what is signed may be read in two ways", "L3", 'f"{len(part)}:{part},"', "part"),
    _keys("a key may be too short", "L3", "if not SECRET_BYTES_MIN <= len(secret) <=", "if not 1 <= len(secret) <="),
    _refusals("a flood of forged events stops the consumer", "L10", "if forged and self._proven:", "if False:"),
    _refusals("wrong keys empty the queues into the dead letters", "L9", "self._proven or forged < len(batch)", "True"),
    _replay("a forged letter is replayed unasked", "L3", "if first is not None and not unverified:", "if False:"),
    _receiving("nobody verifies", "L3", "if verifier is not None:", "if False:"),
    _tasks("a task worker drains unverified", "L3", "settings.signing_key is not None and", "False and"),
)
