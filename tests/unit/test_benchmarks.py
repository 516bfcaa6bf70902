"""The pure parts of the benchmarks: what is printed, written and drawn of some rows, however the marks lie."""

from __future__ import annotations

import dataclasses
import io
import json
import socket
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks import (
    consumer_memory,
    plot,
    report,
    tasks,
)
from benchmarks.__main__ import GROUPS, TOGETHER, chosen, publish
from benchmarks.fleet import PROGRESS, Progress
from benchmarks.rows import Row
from benchmarks.workers import Burst, wait_until
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of


def row(value: float, mark: float | None, *, met: bool | None) -> Row:
    return Row(name="a row", value=value, unit="x the rate", against="another [thing]", mark=mark, met=met)


@pytest.mark.parametrize(
    ("value", "mark", "met", "score"),
    [
        pytest.param(0.4, 0.2, True, 2.0, id="at least, met"),
        pytest.param(0.1, 0.2, False, 0.5, id="at least, missed"),
        pytest.param(10.0, 20.0, True, 2.0, id="at most, met"),
        pytest.param(40.0, 20.0, False, 0.5, id="at most, missed"),
        pytest.param(0.2, 0.2, True, 1.0, id="just met"),
        pytest.param(1.0, None, None, None, id="no mark"),
        pytest.param(0.0, 0.2, None, None, id="not measured"),
    ],
)
def test_given_a_mark_of_either_kind_then_the_score_is_one_where_it_is_just_met_and_larger_is_better(
    value: float,
    mark: float | None,
    met: bool | None,  # noqa: FBT001 - a parameter of the table above
    score: float | None,
) -> None:
    found = row(value, mark, met=met).score
    assert found is None if score is None else found == pytest.approx(score)


def test_given_rows_when_printed_then_each_shows_measured_against_mark_and_whether_it_was_met() -> None:
    printed = io.StringIO()
    measured = [
        row(0.4, 0.2, met=True),
        row(0.1, 0.2, met=False),
        row(0.0, 0.2, met=None),
        row(12_345.6, None, met=None),
    ]
    Console(file=printed, width=160).print(report.table(measured))
    met, missed, absent, plain = (line for line in printed.getvalue().splitlines() if "a row" in line)
    assert "0.4 x the rate" in met
    assert "another [thing]" in met
    assert "200%" in met
    assert "yes" in met
    assert "50%" in missed
    assert " no " in missed
    assert "not measured" in absent
    assert "12,346 x the rate" in plain


@pytest.mark.parametrize(("value", "shown"), [(0.3256, "0.326"), (5.0, "5"), (99.94, "99.9"), (12_345.6, "12,346")])
def test_given_a_figure_when_shown_then_three_digits_count(value: float, shown: str) -> None:
    assert report.figure(value) == shown


def test_given_rows_when_written_then_the_json_has_the_machine_and_every_raw_figure() -> None:
    measured = dataclasses.replace(row(0.4, 0.2, met=True), raw={"rates": [1.0, 2.0]})
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    document = report.document({"tasks": [measured]}, quick=True, now=now, machine=report.machine({"PostgreSQL": "18"}))
    read = json.loads(json.dumps(document))
    assert read["measured_at"] == "2026-01-02T03:04:05+00:00"
    assert read["quick"] is True
    assert read["machine"]["cores"] > 0
    assert read["machine"]["libraries"]["celery"]
    assert read["machine"]["servers"] == {"PostgreSQL": "18"}
    assert read["missing"] == []
    assert read["machine"]["flush_microseconds"] > 0
    assert str(Path.cwd()) not in json.dumps(read)
    assert socket.gethostname() not in json.dumps(read)
    assert read["rows"] == [
        {
            "group": "tasks",
            "name": "a row",
            "value": 0.4,
            "unit": "x the rate",
            "against": "another [thing]",
            "mark": 0.2,
            "met": True,
            "raw": {"rates": [1.0, 2.0]},
            "lacks": "",
            "cause": "",
            "sizes": "",
            "series": [],
            "score": 2.0,
        }
    ]


def test_given_rows_when_drawn_then_the_plot_is_whole_xml_without_scripts_and_names_the_rows_with_marks() -> None:
    named = [
        dataclasses.replace(row(0.4, 0.2, met=True), name="with <mark>"),
        dataclasses.replace(row(1.0, None, met=None), name="without a mark"),
        dataclasses.replace(row(50.0, 1.0, met=True), name="far beyond"),
    ]
    drawn = plot.marks(named, title="a run").decode()
    texts = "".join(ET.fromstring(drawn).itertext())  # noqa: S314 - it was made a line above
    assert "with <mark>" in texts
    assert "without a mark" not in texts
    assert "far beyond" in texts
    assert "script" not in drawn


def test_given_no_row_with_a_mark_when_drawn_then_there_is_still_a_plot() -> None:
    assert b"<svg" in plot.marks([], title="nothing")


def test_given_tasks_that_were_joined_when_a_child_notes_them_then_each_counts(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "1")
    progress.begin(args=([SimpleNamespace(args=("event", 3)), SimpleNamespace(args=("event", 3))],))
    progress.end()
    burst, _, _, count = PROGRESS.unpack((tmp_path / "1").read_bytes())
    assert (burst, count) == (3, 2)


def test_given_what_was_measured_when_published_then_table_json_and_plot_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(
        {"tasks": [row(0.4, 0.2, met=True), row(0.0, 0.2, met=None)]},
        output=tmp_path / "bench",
        quick=False,
        servers={},
    )
    assert {path.name for path in (tmp_path / "bench").iterdir()} == {"bench.json", "bench.svg"}
    assert "not measured: a row: another [thing]" in capsys.readouterr().out


def test_given_rounds_when_turned_into_rows_then_each_mode_has_the_median_of_its_own_ratios() -> None:
    def one(unbilled: float, confirm: float, relay: float) -> tasks.Round:
        rates = {tasks.UNBILLED: unbilled, tasks.CONFIRM: confirm, tasks.RELAY: relay}
        bursts = {mode: Burst(tasks=100, seconds=100 / rate) for mode, rate in rates.items()}
        return tasks.Round(bursts=bursts, drained={tasks.CONFIRM: 0.0, tasks.RELAY: 0.05})

    # A slow moment of the machine, the second round, slows both sides: the ratios stay.
    rounds = [one(1000, 400, 500), one(100, 40, 50), one(1000, 100, 900)]
    confirm, relay = tasks.rows_of(tasks.EMPTY, rounds)
    assert confirm.value == pytest.approx(0.4)
    assert confirm.met is True
    assert relay.value == pytest.approx(0.5)
    assert relay.met is False
    # A hundred tasks in 0.2 s, and then 0.05 s until the outbox was empty.
    assert "(billed: 500/s; its outbox empty 0.1 s after a burst, 400/s until then)" in relay.against
    assert confirm.raw["unbilled_rates"] == pytest.approx([1000, 100, 1000])


def test_given_the_clients_of_the_tasks_then_none_uses_the_queue_that_the_idle_consumer_has() -> None:
    settings = Settings()
    clients = tasks.client_ids(settings)
    assert len(set(clients)) == tasks.CLIENTS
    queues = {queue_of(shard_of(client_id, settings.shards), settings.usage_queues) for client_id in clients}
    assert settings.usage_queues - 1 not in queues


def test_given_two_bursts_when_a_child_notes_its_progress_then_each_is_counted_apart(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "1")
    for burst in (1, 1, 1, 2):
        progress.begin(args=("client", burst))
        progress.end()
    burst, first, last, count = PROGRESS.unpack((tmp_path / "1").read_bytes())
    assert (burst, count) == (2, 1)
    assert first <= last


def test_given_a_condition_that_never_holds_when_waited_for_then_the_wait_is_bounded() -> None:
    with pytest.raises(TimeoutError, match="the moon"):
        wait_until(lambda: False, "the moon", 0.02)


def test_given_the_groups_then_each_has_a_module_of_its_own() -> None:
    assert len(set(GROUPS.values())) == len(GROUPS)


def test_given_a_name_for_several_groups_when_chosen_then_each_runs_once_in_its_order() -> None:
    assert chosen([]) == list(GROUPS)
    assert chosen(["log"]) == ["usage-log", "consumer", "consumer-memory", "growth"]
    assert chosen(["growth", "log", "import"]) == ["import", *TOGETHER["log"]]


def test_given_memory_after_each_slice_then_the_most_and_what_the_last_nine_tenths_added_are_told_apart() -> None:
    resident = [50 * 2**20, *([60 * 2**20] * 8), 90 * 2**20, 70 * 2**20]
    most, added = consumer_memory.rows_of(resident, 1_000)
    assert (most.value, most.met) == (90.0, True)
    assert (added.value, added.met) == (10.0, False)
