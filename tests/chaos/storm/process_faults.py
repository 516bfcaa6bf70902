"""What befalls processes of the fleet: SIGKILL, and SIGSTOP for a while."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.chaos.storm.faults import FAULTS, fault
from tests.chaos.storm.left_out import LeftOut
from tests.chaos.storm.site import BEAT, CONSUMER, WORKER, Site
from tests.hanging import hanging

__all__ = ["FAULTS"]


def _one(site: Site, role: str, chance: random.Random) -> str:
    names = site.names(role)
    if not names:
        raise LeftOut(f"no {role} runs")
    return chance.choice(names)


def _child(site: Site, chance: random.Random) -> psutil.Process:
    """Return a child of a worker."""
    try:
        children = psutil.Process(site.processes[_one(site, WORKER, chance)].child_pid).children()
    except psutil.NoSuchProcess:
        children = []
    if not children:
        raise LeftOut("the worker has no child yet")
    return chance.choice(children)


def _killed(name: str, role: str) -> None:
    @fault(name)
    @contextmanager
    def kill(site: Site, chance: random.Random) -> Iterator[None]:
        site.kill(_one(site, role, chance))
        yield


def _stopped(name: str, role: str) -> None:
    @fault(name)
    @contextmanager
    def stop(site: Site, chance: random.Random) -> Iterator[None]:
        with contextlib.suppress(psutil.NoSuchProcess), hanging(site.processes[_one(site, role, chance)].child_pid):
            yield


for _role in (WORKER, CONSUMER, BEAT):
    _killed(f"{_role} killed", _role)
    _stopped(f"{_role} stopped", _role)


@fault("worker's child killed")
@contextmanager
def _kill_child(site: Site, chance: random.Random) -> Iterator[None]:
    with contextlib.suppress(psutil.NoSuchProcess):
        _child(site, chance).send_signal(signal.SIGKILL)
    yield


@fault("worker's child stopped")
@contextmanager
def _stop_child(site: Site, chance: random.Random) -> Iterator[None]:
    child = _child(site, chance)
    with contextlib.suppress(psutil.NoSuchProcess):
        child.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.resume()
