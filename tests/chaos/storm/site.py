"""The place of a storm: servers of its own, doors in front of them for each kind of process, and the processes.

A process that ends is started again, as systemd would; who ended by itself is counted. In the end nothing is left.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from billing.embedded.process import Child
from billing.embedded.stack import Stack
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.chaos.storm.disks import Disks
from tests.chaos.storm.duplicates import Duplicates
from tests.chaos.storm.plan import POSTGRES, RABBITMQ, REDIS, RESULTS, STRIPE
from tests.fleet.fixtures import make_fleet
from tests.fleet.harness import Fleet
from tests.proxy import Proxy, in_front_of

#: How each server is named in the environment of a process.
VARIABLES: Final = {
    REDIS: "BILLING_REDIS_URL",
    RESULTS: "BILLING_RESULT_URL",
    RABBITMQ: "BILLING_BROKER_URL",
    POSTGRES: "BILLING_DATABASE_URL",
    STRIPE: "BILLING_STRIPE_SANDBOX_URL",
}
WORKER, CONSUMER, BEAT, CLIENT = "worker", "consumer", "beat", "client"
_LOOK_SECONDS: Final = 0.3
#: A process that was just started is not started again at once: Celery itself takes some seconds of a core.
_AGAIN_SECONDS: Final = 1.0
SHARDS: Final = 8
LEASE_SECONDS: Final = 6
#: The reaper sweeps six times in a lease.
SWEEP_SECONDS: Final = LEASE_SECONDS / 6

_SETTINGS: Final = {
    "BILLING_SHARDS": str(SHARDS),
    "BILLING_LEASE_SECONDS": str(LEASE_SECONDS),
    "BILLING_STRIPE_API_KEY": "",
    # A push of many clients while Stripe is away must come to its end within the storm.
    "BILLING_STRIPE_CALLS_PER_SECOND": "200",
    "FLEET_WAIT_SECONDS": "600",
}


class StormFleet(Fleet):
    """The fleet whose workers witness what succeeds."""

    module = "tests.chaos.storm.worker"


class Site:
    """Servers, doors and processes. Use it in a `with` block; `start` starts the processes."""

    def __init__(self, directory: Path, *, workers: int, children: int) -> None:
        self.directory = directory
        self._children = children
        self.roles = {
            **{f"worker-{number}": WORKER for number in range(workers)},
            **{f"consumer-{number}": CONSUMER for number in range(2)},
            "beat": BEAT,
        }
        self.processes: dict[str, Child] = {}
        self.doors: dict[tuple[str, str], Proxy] = {}
        #: Who was ended on purpose and who by itself; what ended a process, if its last words tell.
        self.ended: Counter[str] = Counter()
        #: Set by who runs the storm: what the faults need to know of it.
        self.client_ids: list[str] = []
        self.control: SandboxControl
        self.duplicates: Duplicates
        self._environment: dict[str, dict[str, str]] = {role: {} for role in (WORKER, CONSUMER, BEAT, CLIENT)}
        self._started: dict[str, float] = {}
        self._killed: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            servers = self.directory / "servers"
            servers.mkdir()
            self.disks = stack.enter_context(Disks(servers))
            self.stack = stack.enter_context(Stack(servers, broker="rabbitmq", fast=True))
            urls = {
                REDIS: self.stack.valkey.url,
                RESULTS: self.stack.results.url,
                RABBITMQ: self.stack.endpoints.broker_url,
                POSTGRES: self.stack.postgres.url,
                STRIPE: self.stack.stripe_sandbox.url,
            }
            for role, environment in self._environment.items():
                for server, url in urls.items():
                    self.doors[role, server], environment[VARIABLES[server]] = stack.enter_context(in_front_of(url))
            # The test itself goes straight to the servers, but for the clients' door to the broker.
            direct = {VARIABLES[server]: url for server, url in urls.items()} | _SETTINGS
            fleet = stack.enter_context(_made(direct, self.directory))
            self.fleet = fleet
            stack.callback(self._end_watching)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    @property
    def client_broker_url(self) -> str:
        """Where those who submit tasks find the broker."""
        return self._environment[CLIENT][VARIABLES[RABBITMQ]]

    def start(self) -> None:
        """Start every process, wait until it answers, and watch over them from then on."""
        for name in self.roles:
            self._start(name)
        for name, role in self.roles.items():
            if role != BEAT:
                self.fleet.wait_ready(name)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def names(self, role: str) -> Sequence[str]:
        """Return the processes of a kind that run now."""
        with self._lock:
            return [name for name, child in self.processes.items() if self.roles[name] == role and child.running]

    def kill(self, name: str) -> None:
        """SIGKILL a process; its children end with it."""
        with self._lock:
            self._killed.add(name)
            self.processes[name].kill()

    def open_doors(self) -> None:
        """Let every connection through."""
        for door in self.doors.values():
            door.reopen()

    def _start(self, name: str) -> None:
        role = self.roles[name]
        environment: Mapping[str, str] = self._environment[role]
        self._started[name] = time.monotonic()
        if role == WORKER:
            self.processes[name] = self.fleet.start(name, children=self._children, environment=environment)
        elif role == CONSUMER:
            options = ("--fulfillment",)
            self.processes[name] = self.fleet.start(name, pool="solo", options=options, environment=environment)
        else:
            schedule = str(self.directory / f"beat-{len(self._started)}-{time.monotonic_ns()}")
            arguments = ("-A", "tests.chaos.storm.beat", "beat", "-l", "INFO", "-s", schedule)
            self.processes[name] = self.fleet._run(name, "celery", *arguments, environment=environment)

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            with self._lock:
                for name in self.roles:
                    if self._stopped.is_set():
                        return
                    self._revive(name)

    def _revive(self, name: str) -> None:
        child = self.processes[name]
        if child.running or time.monotonic() - self._started[name] < _AGAIN_SECONDS:
            return
        role = self.roles[name]
        self.ended[f"{role} killed" if name in self._killed else f"{role} ended by itself"] += 1
        self._killed.discard(name)
        self._start(name)

    def _end_watching(self) -> None:
        self._stopped.set()
        with self._lock:
            pass


@contextmanager
def _made(environment: dict[str, str], directory: Path) -> Iterator[StormFleet]:
    with make_fleet(environment, directory, made=StormFleet) as fleet:
        assert isinstance(fleet, StormFleet)
        yield fleet
