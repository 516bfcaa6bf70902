"""What is written of the benchmarks' alternatives, growths and causes: tables, plots, the page of the documentation."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from rich.console import Console

import benchmarks.__main__
from benchmarks import bucket_work, charging, document, one_by_one, plot, recording, report, reserve_load, rows
from benchmarks.causes import CAUSES, UNKNOWN, explained
from benchmarks.rows import Row

FASTER = rows.alternative("DECR", rate=400, ours=100, against="one", lacks="goes below zero and worse", raw={})
ABSENT = Row(name="batches", value=0, unit="", against="no Celery 5.6", mark=None, met=None, lacks="sums, rows, sense")
GROWN = [
    rows.growth("reserve, by grants", sizes="grants", unit="server time", against="", figures=[(1, [2]), (64, [4])]),
    rows.growth("reserve, by connections", sizes="connections", unit="p99", against="", figures=[(1, [1]), (9, [90])]),
]


def row(value: float, mark: float | None, *, met: bool | None) -> Row:
    return Row(name="a row", value=value, unit="x the rate", against="another [thing]", mark=mark, met=met)


def test_given_what_grows_when_drawn_then_there_is_a_chart_for_each_kind_of_size_that_says_it_in_words() -> None:
    drawn = plot.growths([*GROWN, row(0.4, 0.2, met=True)], title="a run")
    assert list(drawn) == ["grants", "connections"]
    root = ET.fromstring(drawn["grants"])  # noqa: S314 - it was made a line above
    assert root.get("role") == "img"
    assert "reserve, by grants, server time: 2.00 times" in root.get("aria-label", "").replace("the ", "")
    assert "prefers-color-scheme:dark" in drawn["grants"].decode()
    assert plot.growths(GROWN, title="a run") == drawn


def test_given_sizes_that_took_turns_then_the_ratio_is_the_median_of_the_turns_ratios() -> None:
    # A slow moment of the machine, the second turn, slows both sizes.
    made = rows.growth("r", sizes="grants", unit="time", against="", figures=[(1, [1, 10, 1]), (64, [2, 20, 30])])
    assert [(point.size, point.value, point.ratio) for point in made.series] == [(1, 1, 1.0), (64, 20, 2.0)]
    assert (made.value, made.unit, made.against) == (2.0, "x the time", "64 grants against 1; ")


def test_given_alternatives_then_the_table_and_the_plot_name_what_each_lacks_and_skip_what_was_not_measured() -> None:
    printed = io.StringIO()
    Console(file=printed, width=160).print(report.alternatives([FASTER, ABSENT, row(0.4, 0.2, met=True)]))
    lines = printed.getvalue().splitlines()
    assert next(line for line in lines if "DECR" in line).count("goes below zero") == 1
    assert "no Celery 5.6" in next(line for line in lines if "batches" in line)
    assert "a row" not in printed.getvalue()
    texts = "".join(ET.fromstring(plot.alternatives([FASTER, ABSENT], title="x").decode()).itertext())  # noqa: S314
    assert "DECR" in texts
    assert "batches" not in texts


def test_given_every_alternative_then_it_says_which_promise_it_lacks() -> None:
    lacks = charging.LACKS | recording.LACKS | one_by_one.LACKS
    assert len(lacks) == len(charging.LACKS) + len(recording.LACKS) + len(one_by_one.LACKS)
    assert [name for name, text in lacks.items() if len(text) < 20] == []


def test_given_ways_to_charge_when_they_take_turns_then_each_has_its_row_and_ours_is_the_measure() -> None:
    calls: list[str] = []
    way = charging.Way(name="UPDATE ...", label="UPDATE", charge=lambda _: calls.append("theirs"))
    (found,) = charging.take_turns(lambda _: calls.append("ours"), [way], 2)
    assert calls.count("theirs") == calls.count("ours") == 3 * charging.BLOCK
    assert found.lacks == charging.LACKS["UPDATE"]
    assert len(cast("list[float]", found.raw["seconds"])) == 2


def test_given_an_interpreter_without_celery_batches_then_its_row_says_why_it_is_not_measured(tmp_path: Path) -> None:
    assert "needs Celery 5.6" in one_by_one.missing_batches(str(tmp_path / "python"))
    without = tmp_path / "without"
    without.write_text("#!/bin/sh\nexit 1\n")
    without.chmod(0o755)
    assert "has no celery-batches" in one_by_one.missing_batches(str(without))


def test_given_what_redis_benchmark_prints_then_rate_and_p99_are_read_whatever_the_command_was() -> None:
    printed = (
        '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",'
        '"max_latency_ms"\n"FCALL reserve 6 a,b\n{}[]","47393.37","0.6","0.2","0.6","0.9","1.255","2.0"\n'
    )
    assert reserve_load.figures_of(printed) == (47393.37, 1.255)


def test_given_a_missed_mark_then_it_has_its_cause_and_a_met_one_has_none() -> None:
    name = "32 connections on one bucket, reserve"
    missed, unknown, met = explained(
        [
            dataclasses.replace(row(1, 10, met=False), name=name),
            row(0.1, 0.2, met=False),
            dataclasses.replace(row(11, 10, met=True), name=name),
        ]
    )
    assert "flush" in missed.cause
    assert (unknown.cause, met.cause) == (UNKNOWN, "")


def test_given_a_run_when_documented_then_the_page_has_every_row_its_plots_and_each_cause(tmp_path: Path) -> None:
    missed = explained([dataclasses.replace(row(0.1, 0.2, met=False), name="missed|row")])
    measured = {"tasks": [row(0.4, 0.2, met=True), *missed], "cost": [*GROWN, FASTER, ABSENT, row(7, None, met=None)]}
    machine = report.machine({"RabbitMQ": "4.9"})
    made = report.document(measured, quick=False, now=datetime(2026, 1, 2, tzinfo=UTC), machine=machine)
    old = tmp_path / "performance" / "growth-moons.svg"
    old.parent.mkdir()
    old.write_text("of an earlier run")
    document.write(json.loads(json.dumps(made)), tmp_path)

    page = (tmp_path / "performance.md").read_text("utf-8")
    plots = {path.name for path in (tmp_path / "performance").iterdir()}
    assert plots == {"marks.svg", "alternatives.svg", "growth-grants.svg", "growth-connections.svg"}
    assert set(re.findall(r"\(performance/([\w.-]+)\)", page)) == plots
    assert "2026-01-02" in page
    assert "RabbitMQ 4.9" in page
    assert "| a row | 0.4 x the rate | 0.2 | 2.00 | yes | another \\[thing] |" in page
    assert f"| missed\\|row | 0.1 x the rate | 0.2 | {UNKNOWN} |" in page
    assert "| DECR | 0.25 | goes below zero and worse |" in page
    assert "1: 1, 64: 2" in page
    assert "| a row | 7 x the rate |" in page
    assert document.rows_of(json.loads(json.dumps(made)))[0] == row(0.4, 0.2, met=True)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"quick": True}, "quick: true must be false"),
        ({"missing": ["consumer", "tasks"]}, "missing: consumer, tasks: must be none"),
        ({"version": 2}, "version 2 must be 3"),
    ],
)
def test_given_a_run_in_part_when_documented_then_one_line_says_so_and_the_page_stays(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    made = report.document({"tasks": [FASTER]}, quick=False, now=datetime.now(UTC), machine=report.machine({}))
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(made | said))
    done = CliRunner().invoke(document.main, [str(bench), "--docs", str(tmp_path / "docs")])
    assert done.exit_code == 1
    assert why in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "docs").exists()


def test_given_rounds_when_the_sides_take_turns_then_each_second_round_begins_with_the_last() -> None:
    assert [rows.alternated("abc", number) for number in range(3)] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["a", "b", "c"],
    ]


def test_given_a_load_of_reserves_then_each_stores_what_a_worker_would() -> None:
    client_id = "hot-0"
    command = reserve_load.command_of(
        "redis-benchmark", "redis://:secret@127.0.0.1:1/0", "reserve", client_id, connections=1, calls=1, run=0
    )
    ((*_, sent),), _ = bucket_work.commands_of(bucket_work.work_of([client_id]))
    assert isinstance(sent, bytes)
    assert len(command[-1]) == len(sent)
    assert len(sent) > 200
    assert client_id in command[-1]


def test_the_page_of_the_documentation_was_made_by_the_code_as_it_is() -> None:
    """Given docs/performance.md, then it has every plot that is there, and without a run neither plots nor tables."""
    page = (document.DOCS / "performance.md").read_text("utf-8")
    assert page.startswith(document.HEAD)
    shown = set(re.findall(r"\(performance/([\w.-]+)\)", page))
    assert shown == {path.name for path in document.DOCS.glob("performance/*")}
    assert ("marks.svg" in page) is ("|---|" in page) is ("No figure is published yet" not in page)
    missed = page.partition(document._MISSED)[2].partition("\n## ")[0].splitlines()
    cells = [line.removesuffix(" |").split(" | ") for line in missed if line.startswith("| ")]
    assert {re.sub(r"\\(.)", r"\1", cause) for *_, cause in cells[1:]} <= set(CAUSES.values())


@pytest.mark.parametrize(("groups", "quick"), [(["import"], "0"), ([], "1")])
def test_a_run_in_part_does_not_become_the_page_of_the_documentation(
    monkeypatch: pytest.MonkeyPatch, groups: list[str], quick: str
) -> None:
    monkeypatch.setenv("QUICK", quick)
    done = CliRunner().invoke(benchmarks.__main__.main, ["--document", *groups])
    assert done.exit_code == 2
    assert "a whole run" in done.output
