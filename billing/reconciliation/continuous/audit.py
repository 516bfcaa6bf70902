"""Reads buckets, shard by shard where not all answer: a silent one keeps no other from being compared (L10)."""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping
from typing import Final

from billing.core.errors import Unreachable
from billing.credits.auditing import BucketReading
from billing.credits.verbs import Verbs

logger = logging.getLogger(__name__)

#: Shards that do not answer before the others of a slice are not asked: each costs its wait (L9).
SILENT_MAX: Final = 2
SILENT: Final = "its Redis does not answer"


def audit(buckets: Verbs, shards: Mapping[str, int]) -> dict[str, BucketReading]:
    """Return the buckets of some clients (client → shard) whose Redis answers."""
    try:
        return buckets.audit(list(shards))
    except Unreachable as error:
        if len(set(shards.values())) == 1:
            logger.warning("billing: buckets are not compared: %s", error)
            return {}
    by_shard: dict[int, list[str]] = collections.defaultdict(list)
    for client_id, shard in shards.items():
        by_shard[shard].append(client_id)
    found: dict[str, BucketReading] = {}
    silent = 0
    for client_ids in by_shard.values():
        try:
            found.update(buckets.audit(client_ids))
        except Unreachable as error:
            silent += 1
            if silent == SILENT_MAX:
                logger.warning("billing: buckets are not compared: %s", error)
                break
    return found
