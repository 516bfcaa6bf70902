"""`billing_redis_url`: one server, Sentinels or a cluster; what is refused says the rule, and never a password."""

from __future__ import annotations

import pytest

from billing.core.errors import InvalidValue
from billing.core.redis_address import NODES_MAX, read_address
from billing.core.settings import load, without_password

SECRET = "hunter2secret"


def test_sentinels_are_named_with_their_service_and_database() -> None:
    address = read_address(
        "key", f"redis+sentinel://worker:{SECRET}%40%2C@one:26379,two,[::1]:26380/mymaster/2?sentinel_password=other"
    )
    assert (address.kind, address.service, address.database) == ("sentinel", "mymaster", 2)
    assert address.nodes == (("one", 26379), ("two", 26379), ("::1", 26380))
    assert (address.username, address.password) == ("worker", f"{SECRET}@,")
    assert (address.sentinel_username, address.sentinel_password) == (None, "other")
    assert not address.tls
    assert SECRET not in repr(address)


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    address = read_address("key", f"rediss+cluster://:{SECRET}@one:7001,two?ssl_ca_certs=/ca.pem&ssl_check_hostname=no")
    assert (address.kind, address.nodes, address.tls) == ("cluster", (("one", 7001), ("two", 6379)), True)
    assert (address.username, address.password) == (None, SECRET)
    assert dict(address.tls_options) == {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}


def test_a_plain_server_is_left_to_redis_py() -> None:
    for url in ("redis://h/0", "rediss://h:1/0", "unix:///run/valkey.sock?db=1"):
        assert read_address("key", url).kind == "server"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis+sentinel://SECRET@h", "must end with the name of the service"),
        ("redis+sentinel://:SECRET@h/", "must end with the name of the service"),
        ("redis+sentinel://:SECRET@h/mymaster/x", "must end with the name of the service"),
        ("redis+sentinel://:SECRET/more@h/mymaster", "must "),
        ("redis+sentinel://:SECRET@h:x,i/mymaster", "must name nodes as host:port,host:port"),
        ("redis+cluster://:SECRET@h:0", "must name nodes"),
        ("redis+cluster://:SECRET@h:65536", "must name nodes"),
        ("redis+cluster://:SECRET@", "must name nodes"),
        ("redis+cluster://:SECRET@h,,i", "must name nodes"),
        ("redis+cluster://:SECRET@[::1", "must be a URL with valid hosts"),
        ("redis+cluster://:SECRET@h/1", "must have no path"),
        ("redis+cluster://:SECRET#more@h", "must "),
        ("redis+cluster://h#SECRET", "must have no fragment"),
        ("redis+cluster://h?password=SECRET", "must have no options"),
        ("redis+sentinel://h/s?socket_timeout=60&password=SECRET", "must have only the options sentinel_username"),
        ("rediss+cluster://:SECRET@h?sentinel_password=x", "must have only the options ssl_ca_certs"),
        ("rediss+cluster://:SECRET@h?ssl_cert_reqs=maybe", "must have ssl_cert_reqs as one of"),
        ("rediss+cluster://:SECRET@h?ssl_check_hostname=maybe", "must have ssl_check_hostname"),
        ("redis+cluster://:SECRET@" + ",".join(f"h{n}" for n in range(NODES_MAX + 1)), "must name at most 32 nodes"),
        ("redis+x://:SECRET@h", "must be a URL that begins with redis://"),
    ],
)
def test_what_is_refused_says_the_rule_in_one_line_and_no_password(url: str, rule: str) -> None:
    url = url.replace("SECRET", SECRET)
    with pytest.raises(InvalidValue, match=r"^billing_redis_url: [^\n]*$") as refused:
        load({"billing_redis_url": url}, {})
    assert refused.value.rule.startswith(rule)
    assert SECRET not in str(refused.value)
    assert SECRET not in without_password(url)


def test_what_is_shown_of_many_nodes_has_no_user_password_or_query() -> None:
    url = f"redis+sentinel://u:{SECRET}@one:1,two:2/mymaster/0?sentinel_password={SECRET}"
    assert without_password(url) == "redis+sentinel://one:1,two:2/mymaster/0"
    assert load({}, {"BILLING_REDIS_URL": url}).redis_url == url
