"""A server that answers and refuses: one line says which one and what is wrong, without a password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.core.errors import Fatal, Unreachable
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from tests.contract.conftest import binary_or_skip
from tests.contract.making import a_client, a_hold, a_run
from tests.contract.servers import BINARIES, SHARDS, Server, started

#: One server's own address and its one user list.
ON_CLUSTER = False
pytestmark = pytest.mark.raw("what a server refuses")
SHARD = shard_of("acme", SHARDS)
LOGIN = ("limited", "secret")


@pytest.fixture
def limited(server: Server) -> Iterator[str]:
    """Make a user who may do everything but call functions."""
    client = server.client()
    client.acl_setuser(
        LOGIN[0], enabled=True, passwords=f"+{LOGIN[1]}", keys="*", categories=["+@all"], commands=["-fcall"]
    )
    yield LOGIN[0]
    client.acl_deluser(LOGIN[0])


@pytest.fixture(params=list(BINARIES))
def old_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server without functions, as Redis 6 is."""
    with started(binary_or_skip(request.param), "--rename-command", "FCALL", "") as running:
        yield running


def refusal(server: Server, buckets: Buckets, kind: type[Exception]) -> str:
    """Reserve, which is refused, and return the one line that says why."""
    with pytest.raises(kind) as caught:
        buckets.reserve(a_hold(a_run(), 1))
    message = str(caught.value)
    assert message.startswith(f"billing_redis_url: 'redis://127.0.0.1:{server.port}': ")
    assert "\n" not in message
    assert LOGIN[1] not in message
    assert len(message) < 400
    return message


@pytest.mark.usefixtures("limited")
def test_a_user_without_permission_is_told_which(server: Server) -> None:
    refused = server.buckets(client=server.client(login=LOGIN), verified=False)
    assert "the user may not run what billing needs: FCALL" in refusal(server, refused, Fatal)
    with pytest.raises(Fatal, match="may not run"):
        refused.renew([("acme", a_run(), None)])


@pytest.mark.usefixtures("limited")
def test_a_wrong_password_is_told_apart_from_a_server_that_is_away(server: Server) -> None:
    refused = server.buckets(client=server.client(login=("limited", "wrong")), verified=False)
    assert "refuses the user or password" in refusal(server, refused, Unreachable)


def test_a_server_without_functions_is_told_apart(old_server: Server) -> None:
    message = refusal(old_server, old_server.buckets(verified=False), Fatal)
    assert "it must be Redis 7 or Valkey" in message
    assert "acme" not in message


def test_a_key_of_another_type_is_told(server: Server, buckets: Buckets) -> None:
    """Given an outbox that something else overwrote, then the call says so and takes nothing."""
    a_client(buckets, 100)
    server.client().set(f"{{billing:{SHARD}}}:outbox", "no stream")
    assert "a key of billing holds something that billing did not write" in refusal(server, buckets, Fatal)
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held) == (100, 0)
