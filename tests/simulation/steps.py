"""What may happen next in a world, each as often as its weight says, and the loops that come round by the clock."""

from __future__ import annotations

from typing import Final

#: What goes on while everything comes to rest, too.
WORKING: Final = (
    (40, "work"),
    (12, "consume"),
    (8, "rebuild"),
)
#: The loops of the fulfillment worker, and their intervals in ms. Each comes when it is due, or a little later.
LOOPS: Final = {
    "apply_grants": 2_000,
    "apply_voids": 2_000,
    "lapse": 5_000,
    "apply_postings": 1_000,
    "relay_outboxes": 2_000,
    "reap": 5_000,
    "meet_doom": 1_000,
}
STEPS: Final = (
    *((weight * 20, name) for weight, name in WORKING),
    (160, "submit"),
    (30, "grant"),
    (6, "correct"),
    (3, "void"),
    (10, "deliver_twice"),
    (5, "publish_twice"),
    (5, "set_a_clock"),
    (4, "take_a_snapshot"),
    (12, "kill_a_process"),
    (3, "stall_a_process"),
    (2, "stand_still"),
    (6, "partition"),
    (20, "reorder"),
    (6, "redeploy"),
    (3, "lose_redis"),
    (3, "lose_redis_without_broker"),
    (1, "lose_a_bucket"),
    (8, "interrupt_redis"),
    (3, "interrupt_broker"),
)
