"""How the rooms of a `Buckets` reach their scripts: keys of a client's shard, one command, the outcome's word."""

from __future__ import annotations

from collections.abc import Sequence

from billing.core.shards import shard_of
from billing.credits.keys import ShardKeys
from billing.credits.scripts import Command, Scripts


class Calling:
    """What `Buckets` and its parts share."""

    shards: int
    _scripts: Scripts
    _keys: tuple[ShardKeys, ...]
    _lease_ms: int
    _retention_ms: int
    _percents: str

    def _keys_of(self, client_id: str) -> ShardKeys:
        return self._keys[shard_of(client_id, self.shards)]

    def node_of(self, shard: int) -> str:
        """Return the name of the server that has a shard, as far as it is known here: nobody is asked."""
        return self._scripts.node_of(self._keys[shard].server)

    def _milliseconds(self, lease_seconds: float | None) -> int:
        return self._lease_ms if lease_seconds is None else round(lease_seconds * 1_000)

    def _command(self, verb: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        return ("FCALL", self._scripts.functions[verb], len(keys), *keys, *arguments)

    def _call(self, verb: str, keys: Sequence[str], *arguments: str | bytes | int) -> str:
        """Return the one word that a script answers."""
        answer: bytes = self._scripts.run(self._command(verb, keys, *arguments))
        return answer.decode()
