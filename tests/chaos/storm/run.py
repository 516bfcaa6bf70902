"""A storm from beginning to end: servers, clients, load, faults, rest, judgement. Bounded; leaves nothing running."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from billing.admin import bulk
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.workload.stripe_report import report_usage
from tests.chaos.losing import Losing
from tests.chaos.storm.book import Book, Law
from tests.chaos.storm.duplicates import Duplicates
from tests.chaos.storm.injecting import Injector, heal
from tests.chaos.storm.judging import appended, judge, rows
from tests.chaos.storm.load import PLENTY, Load, Size
from tests.chaos.storm.plan import KINDS, plan
from tests.chaos.storm.report import Report, counts_of
from tests.chaos.storm.rest import Restless, come_to_rest
from tests.chaos.storm.site import Site
from tests.chaos.storm.snapshots import Snapshots
from tests.chaos.storm.witness import SUCCEEDED, begun, witnessed

#: How long a submission may still be on its way to the broker when the load ends.
_STOP_SECONDS: Final = 60.0
#: How often the append-only tables are looked at while faults are injected; a short storm has this many looks.
SNAPSHOT_SECONDS: Final = 60.0
_SNAPSHOTS_MIN: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Storm:
    """What a storm is: a function of its seed."""

    seed: int
    seconds: float
    size: Size
    workers: int = 3
    children: int = 2
    kinds: Collection[str] = tuple(KINDS)


def run(storm: Storm, directory: Path, tell: Callable[[str], None]) -> Report:
    """Run a storm in an empty directory, and return its report, with violations or without."""
    began = time.monotonic()

    def say(text: str) -> None:
        tell(f"{time.monotonic() - began:6.1f} s  {text}")

    faults = plan(storm.seed, storm.seconds, storm.kinds)
    say(f"seed {storm.seed}: {len(faults)} faults in {storm.seconds:g} s; starting servers")
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site(directory, workers=storm.workers, children=storm.children))
        site.control = stack.enter_context(SandboxControl(site.stack.stripe_sandbox.url))
        book = _open_accounts(site, storm.size)
        site.duplicates = Duplicates(site.fleet.settings)
        Losing(site.stack.valkey).note_seconds()
        say(f"{len(book.clients)} clients; starting {len(site.roles)} processes")
        site.start()
        load = Load(site, book, storm.size, storm.seed)
        stack.callback(load.close)
        injector = Injector(site, faults)
        load.start()
        say("load and faults begin")
        with Snapshots(lambda: appended(site), min(SNAPSHOT_SECONDS, storm.seconds / _SNAPSHOTS_MIN)) as snapshots:
            injector.run()
        say(f"the last fault is over: {sum(injector.counts().values())} injected; the load ends")
        load.stop(_STOP_SECONDS)
        heal(site)
        snapshots.look()
        say("everything is healed; coming to rest")
        book.losses = injector.losses()
        rest, laws = _rest_and_laws(site, book, load, snapshots, say)
        return Report(
            seed=storm.seed,
            seconds=storm.seconds,
            counts=counts_of(book, rows(site)),
            duplicates=site.duplicates.published,
            faults=dict(sorted(injector.counts().items())),
            left_out=dict(sorted(injector.left_out().items())),
            ended=dict(sorted(site.ended.items())),
            recovered=[done.recovered_seconds for done in injector.done if done.recovered_seconds is not None],
            rest=rest,
            laws=laws,
            errors=injector.errors,
        )


def _open_accounts(site: Site, size: Size) -> Book:
    """Add the clients, grant the rich ones more than they can use, and subscribe all of them at Stripe."""
    names = [f"client-{number:04}" for number in range(size.clients)]
    book, settings = Book(names[size.short :], names[: size.short]), site.fleet.settings
    site.client_ids = names
    bulk.add_clients(settings, names)
    bulk.grant_each(settings, book.rich, PLENTY, key="plenty")
    book.granted_before(book.rich, PLENTY)
    report = report_usage(settings, names)
    assert report.reached, report.text
    return book


def _rest_and_laws(
    site: Site, book: Book, load: Load, snapshots: Snapshots, say: Callable[[str], None]
) -> tuple[dict[str, float], list[Law]]:
    rest: dict[str, float] = {}
    broken = []
    try:
        come_to_rest(site, load, rest)
    except Restless as error:
        broken = [str(error)]
        say(str(error))
    load.outcome()
    book.witnessed = witnessed(site.directory, SUCCEEDED)
    book.begun = begun(site.directory)
    site.duplicates.remove()
    say("judging")
    laws = judge(site, book, snapshots, rest)
    at_rest = Law(law="rest", says="comes to rest within its bounds", examined=1, violations=broken)
    return {} if broken else rest, [at_rest, *laws]
