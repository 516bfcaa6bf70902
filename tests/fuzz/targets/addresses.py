"""An address is read, or refused in one line; what is shown of one has neither user nor password."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from billing.core.redis_address import NODES_MAX, read_address, redis_url, shown_nodes
from billing.core.settings import without_password
from billing.core.webhook_url import check_webhook_url
from tests.fuzz.laws import SECRET, as_text, check_line, hold, refusing
from tests.fuzz.nasty import SECRETS
from tests.fuzz.target import Target


def check(data: bytes) -> None:
    """Read bytes as each kind of address."""
    text = as_text(data)
    for insecure in (False, True):
        with refusing(secret=_is_login(text)):
            hold(that=check_webhook_url(text, insecure=insecure) == text, but=text)
            check_line(text)
            hold(that="@" not in urlsplit(text).netloc, but=text)
    # What stands before :// is shown as the scheme that was typed.
    with refusing(secret=SECRET not in text.partition("://")[0]):
        taken = redis_url("billing_redis_url", text)
        hold(that=taken == text and (shown_nodes(text) is not None or text.isprintable()), but=text)
        address = read_address("billing_redis_url", taken)
        hold(that=SECRET not in repr(address) or _is_login(text) is False, but=repr(address))
        hold(that=len(address.nodes) <= NODES_MAX and all(0 < port < 65_536 for _, port in address.nodes), but=address)
        _check_shown(taken)
    shown_nodes(text)


def _check_shown(url: str) -> None:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    if SECRET in login and url.count(SECRET) == 1:
        hold(that=SECRET not in without_password(url), but=without_password(url))


def _is_login(text: str) -> bool:
    """Whether the secret stands where a password does, or where a person meant it to."""
    return f":{SECRET}" in text and "@" in text.partition(SECRET)[2]


def seeds() -> Iterator[bytes]:
    """Yield addresses of each kind."""
    yield from SECRETS
    for text in (
        "redis://127.0.0.1:6379/0",
        f"rediss+sentinel://u:{SECRET}@a:1,[::1]:2/main/3?sentinel_username=x&ssl_cert_reqs=none",
        "redis+cluster://a,b:7000",
        "rediss+cluster://a?ssl_check_hostname=yes",
        "unix:///tmp/redis.sock?db=0",
        "https://shop.example/hooks?x=1",
        "http://[::1]:8000/x",
        "https://b\u00fccher.example./",
        f"https://u:{SECRET}@shop.example/",
    ):
        yield text.encode()


TARGET = Target(
    check=check, seeds=seeds, words=(b"https://", b"redis+sentinel://", b"@", b"[::1]", b":0", b"?", *SECRETS)
)
