"""Reads `billing_redis_url`: one server, Sentinels that know which server it is, or nodes of a Redis Cluster.

  redis://[user:password@]host[:port][/db]              rediss://…  the same over TLS
  unix://[user:password@]/path/to/socket[?db=0]
  redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]
  redis+cluster://[user:password@]host:port[,host:port…]
  rediss+sentinel://…, rediss+cluster://…               the same over TLS

Reading is pure. What is refused is refused in one line that never shows user, password or query.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from billing.core.errors import InvalidValue
from billing.core.parsers import url

Kind = Literal["server", "sentinel", "cluster"]

_PLAIN: Final = ("redis", "rediss", "unix")
_SCHEMES: Final = (*_PLAIN, "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
#: More than anybody starts with; each may cost one timeout before the next is asked (L9).
NODES_MAX: Final = 32
_NODE: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_SERVICE: Final = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(/(?P<database>[0-9]{1,4}))?/?")
_PORT_MAX: Final = 65_535

#: Query options of TLS, as redis-py names them.
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_CERTIFICATES: Final = ("none", "optional", "required")
#: Query options of Sentinels' own user and password, which are not those of the servers that they watch.
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RedisAddress:
    """Where billing's Redis is, and as whom to enter. A plain server's URL is read by redis-py itself."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    username: str | None = dataclasses.field(default=None, repr=False)
    password: str | None = dataclasses.field(default=None, repr=False)
    sentinel_username: str | None = dataclasses.field(default=None, repr=False)
    sentinel_password: str | None = dataclasses.field(default=None, repr=False)
    tls: bool = False
    tls_options: Mapping[str, str | bool] = dataclasses.field(default_factory=dict, repr=False)


def redis_url(key: str, value: object) -> str:
    """Return a URL that `read_address` can read."""
    text: str = value if isinstance(value, str) and _is_many(value) else url(*_SCHEMES)(key, value)
    read_address(key, text)
    return text


def read_address(key: str, text: str) -> RedisAddress:
    """Return what a URL says. Raises `InvalidValue`."""
    if not _is_many(text):
        return RedisAddress(kind="server")
    scheme = text.split("://", 1)[0]
    kind: Kind = "sentinel" if scheme.endswith("sentinel") else "cluster"
    refuse = _Refusal(key, f"{scheme}://…")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise refuse.because("must be a URL with valid hosts, user and password percent-encoded") from None
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    service, database = _service(refuse, kind, parts.path)
    if parts.fragment:
        raise refuse.because("must have no fragment: percent-encode # in user and password")
    options = _options(refuse, kind, scheme, parts.query)
    return RedisAddress(
        kind=kind,
        nodes=_nodes(refuse, kind, hosts),
        service=service,
        database=database,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=scheme.startswith("rediss"),
        tls_options=_tls(refuse, options),
    )


def shown_nodes(text: str) -> str | None:
    """Return a URL of several nodes without user, password and query; None for any other URL."""
    if not _is_many(text):
        return None
    try:
        read_address("billing_redis_url", text)
        parts = urlsplit(text)
    except (InvalidValue, ValueError):
        # It is refused where it is read; until then nothing of it is shown.
        return f"{text.split('://', 1)[0]}://…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class _Refusal:
    """Makes the refusals of one URL, of which only the scheme is shown."""

    def __init__(self, key: str, shown: str) -> None:
        self._key, self._shown = key, shown

    def because(self, rule: str) -> InvalidValue:
        return InvalidValue(self._key, self._shown, rule)


def _is_many(text: str) -> bool:
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme in _SCHEMES and scheme not in _PLAIN


def _nodes(refuse: _Refusal, kind: Kind, text: str) -> tuple[tuple[str, int], ...]:
    rule = "must name nodes as host:port,host:port after the last @, user and password percent-encoded"
    nodes: list[tuple[str, int]] = []
    for part in text.split(","):
        found = _NODE.fullmatch(part)
        port = int(found["port"] or _PORTS[kind]) if found else 0
        if not found or not 1 <= port <= _PORT_MAX:
            raise refuse.because(rule)
        nodes.append((found["host"].strip("[]"), port))
    if len(nodes) > NODES_MAX:
        raise refuse.because(f"must name at most {NODES_MAX} nodes: the others are found through them")
    return tuple(dict.fromkeys(nodes))


def _service(refuse: _Refusal, kind: Kind, path: str) -> tuple[str, int]:
    if kind == "cluster":
        if path not in {"", "/", "/0"}:
            raise refuse.because("must have no path: a cluster has database 0 alone")
        return "", 0
    found = _SERVICE.fullmatch(path)
    if not found:
        raise refuse.because(
            "must end with the name of the service, as /mymaster, and at most a database, as /mymaster/0"
        )
    return found["service"], int(found["database"] or 0)


def _options(refuse: _Refusal, kind: Kind, scheme: str, query: str) -> dict[str, str]:
    """Return the query's options; one that nobody reads would be a bound or a check that is not there."""
    known = _SENTINEL_OPTIONS if kind == "sentinel" else ()
    known = (*known, *_TLS_OPTIONS) if scheme.startswith("rediss") else known
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - set(known):
        allowed = f"only the options {', '.join(known)}" if known else "no options"
        raise refuse.because(f"must have {allowed} after ?")
    return options


def _tls(refuse: _Refusal, options: Mapping[str, str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {name: options[name] for name in _TLS_OPTIONS if name in options}
    if found.get("ssl_cert_reqs", "required") not in _CERTIFICATES:
        raise refuse.because(f"must have ssl_cert_reqs as one of: {', '.join(_CERTIFICATES)}")
    if "ssl_check_hostname" in options:
        if options["ssl_check_hostname"].lower() not in _WORDS:
            raise refuse.because("must have ssl_check_hostname as true or false")
        found["ssl_check_hostname"] = _WORDS[options["ssl_check_hostname"].lower()]
    return found
