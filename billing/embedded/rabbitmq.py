"""An embedded RabbitMQ: a private node of the installed server, with a port mapper (epmd) of its own.

Guarantee: every port (AMQP, distribution, epmd) on loopback only, an own user and cookie, no plugins, no file outside
`directory`, nothing taken from a system broker's configuration. Works as root and as any user who can execute the
server.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import amqp

from billing.core.errors import Fatal, InvalidValue
from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, NotInstalled, Server, free_port

USER: Final = "billing"
NODE: Final = "billing@localhost"
CALL_LIMIT_SECONDS: Final = 30.0
#: What `erl_call` says when it evaluated nothing.
_UNREACHED: Final = "failed to connect to node"
_PAUSE_SECONDS: Final = 0.2
PLACES: Final = (
    "/usr/lib/rabbitmq/bin",  # Debian; what it has on PATH is a wrapper that changes to the user `rabbitmq`
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
)
CONFIGURATION: Final = """\
listeners.tcp.local = {host}:{port}
default_user = {user}
default_pass = {password}
vm_memory_high_watermark.relative = 0.7
disk_free_limit.absolute = 64MB
collect_statistics_interval = 30000
log.console = true
log.console.level = warning
log.file = false
"""
ERLANG: Final = "-noinput -kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"


class RabbitMQ(Server):
    """One RabbitMQ node with the virtual host `/`, and its epmd."""

    name: ClassVar[str] = "rabbitmq"
    _epmd: Child | None = None
    _epmd_port: int = 0

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return self.url_of("/")

    def url_of(self, virtual_host: str) -> str:
        """Return the URL of a virtual host."""
        path = "" if virtual_host == "/" else virtual_host
        return f"amqp://{USER}:{self._password()}@{LOOPBACK}:{self.port}/{path}"

    def add_virtual_host(self, name: str) -> str:
        """Make a virtual host (letters, digits, hyphens) and return its URL."""
        owner, host, all_names = f'<<"{USER}">>', f'<<"{_plain(name)}">>', '<<".*">>'
        permissions = f"{owner}, {host}, {all_names}, {all_names}, {all_names}, {owner}"
        self._call(f"ok = rabbit_vhost:add({host}, {owner})")
        self._call(f"ok = rabbit_auth_backend_internal:set_permissions({permissions})")
        return self.url_of(name)

    def remove_virtual_host(self, name: str) -> None:
        """Remove a virtual host with everything in it; its connections are closed."""
        self._call(f'ok = rabbit_vhost:delete(<<"{_plain(name)}">>, <<"{USER}">>)')

    def _call(self, expression: str) -> None:
        """Evaluate Erlang inside the node: by `erl_call` in 15 ms, where that is missing by `rabbitmqctl` in 500 ms."""
        if found := shutil.which("erl_call"):
            command, text = [found, "-sname", NODE, "-e"], f"{expression}.\n"
        else:
            command, text = [str(programs() / "rabbitmqctl"), "eval", f"{expression}."], ""
        deadline = time.monotonic() + CALL_LIMIT_SECONDS
        while True:
            left = deadline - time.monotonic()
            answer = self._evaluated(command, text, max(left, 1.0))
            if answer is None:
                return
            # On a busy machine the node may be too slow to shake hands; nothing was evaluated then.
            if _UNREACHED not in answer or left <= 0 or not self.running:
                raise Fatal(f"{self.name}: {expression}: {answer[:300]}")
            time.sleep(_PAUSE_SECONDS)

    def _evaluated(self, command: Sequence[str], text: str, seconds: float) -> str | None:
        """Return what went wrong; None: nothing."""
        environ = self._environment(distribution_port=0)
        done = subprocess.run(
            command, input=text, env=environ, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode == 0 and "ok" in done.stdout:
            return None
        return " ".join((done.stdout + done.stderr).split())

    def stop(self, *, timeout_seconds: float = 20.0) -> None:
        """End the node, then its port mapper."""
        super().stop(timeout_seconds=timeout_seconds)
        if self._epmd is not None:
            self._epmd.stop(2.0)

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("home", "mnesia", "log", "config"):
            (self.directory / name).mkdir(mode=0o700, exist_ok=True)
        cookie = self.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._password("cookie"))
            cookie.chmod(0o400)
        self._write("enabled_plugins", "[].\n")
        self._write("rabbitmq-env.conf", "")  # else the system broker's is read

    def _spawn(self) -> Child:
        if self._epmd is None or not self._epmd.running:
            self._start_epmd()
        self._write(
            "config/rabbitmq.conf",
            CONFIGURATION.format(host=LOOPBACK, port=self.port, user=USER, password=self._password()),
        )
        return Child.spawn(
            self.name,
            [programs() / "rabbitmq-server"],
            environ=self._environment(distribution_port=free_port()),
            cwd=self.directory,
            log=self.log,
            grace_seconds=8.0,
            hold=self._hold,
        )

    def _start_epmd(self) -> None:
        """Start our own port mapper: the one that Erlang starts is shared, listens everywhere, outlives the node."""
        for _ in range(3):
            self._epmd_port = free_port()
            command: list[str | os.PathLike[str]] = [
                _epmd_program(),
                "-port",
                str(self._epmd_port),
                "-address",
                LOOPBACK,
            ]
            self._epmd = Child.spawn(
                "epmd",
                command,
                environ=dict(os.environ),
                cwd=self.directory,
                log=self.directory / "epmd.log",
                hold=self._hold,
            )
            if self._wait_for_epmd(self._epmd):
                return
            self._epmd.kill()
        raise Fatal(f"{self.name}: its port mapper did not start; see {self.directory / 'epmd.log'}")

    def _wait_for_epmd(self, epmd: Child) -> bool:
        for _ in range(100):
            if epmd.wait(0.02) is not None:
                return False
            with socket.socket() as probe:
                if probe.connect_ex((LOOPBACK, self._epmd_port)) == 0:
                    return True
        return False

    def _environment(self, *, distribution_port: int) -> dict[str, str]:
        """Everything that the start scripts would otherwise take from the system broker's places."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        directory = self.directory.resolve()
        own |= {
            "HOME": str(directory / "home"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(directory / "config" / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "config" / "advanced"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "config" / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(directory / "config" / "schema"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            # The start script then becomes the Erlang machine instead of waiting for it: the child is the server.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }
        if distribution_port:
            own["RABBITMQ_DIST_PORT"] = str(distribution_port)
        return own

    def _probe(self) -> bool:
        connection = amqp.Connection(
            f"{LOOPBACK}:{self.port}",
            USER,
            self._password(),
            connect_timeout=2,
            read_timeout=5,
            write_timeout=5,
            heartbeat=0,
        )
        try:
            connection.connect()
        except (OSError, amqp.exceptions.AMQPError):
            return False
        finally:
            connection.collect()
        return True

    def _wipe(self) -> None:
        self._remove("mnesia")


def programs() -> Path:
    """Find the directory of `rabbitmq-server` and `rabbitmqctl`; `NotInstalled` when there is none that we can use."""
    on_path = shutil.which("rabbitmq-server")
    places = [Path(place) for place in PLACES]
    if on_path is not None and Path(on_path).resolve().name != "rabbitmq-script-wrapper":
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if os.access(place / "rabbitmq-server", os.X_OK) and shutil.which("erl"):
            _epmd_program()
            return place
    raise NotInstalled(
        "rabbitmq: no server found; install your system's package (Debian: apt-get install rabbitmq-server)"
    )


def _epmd_program() -> Path:
    found = shutil.which("epmd")
    candidates = [Path(found)] if found else sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    if not candidates:
        raise NotInstalled("rabbitmq: Erlang's port mapper (epmd) was not found")
    return candidates[-1]


def _plain(name: str) -> str:
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise InvalidValue("virtual_host", name, "must be made of letters, digits and hyphens")
    return name
