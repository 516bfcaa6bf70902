"""The Lua files: each names its keys, arguments and reply, and why it is atomic; numbers are written exactly."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from billing.credits.scripts import SHARED, VERBS, Command, library, slices

FOLDER = resources.files("billing.credits") / "lua"


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verb_says_its_keys_its_reply_and_why_it_is_atomic(verb: str) -> None:
    text = (FOLDER / f"{verb}.lua").read_text("utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("--"))
    assert text.startswith(f"-- {verb}: ")
    for part in ("-- KEYS ", "-- Reply ", "-- Atomic because "):
        assert part in header, part
    keys = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", text)}
    described = header.partition("-- KEYS ")[2].partition("-- ARGV")[0].partition("-- Reply")[0]
    assert keys == {int(number) for number in re.findall(r" (\d+)…? ", described) if int(number) in keys}


def test_every_lua_file_is_a_verb_or_shared_by_the_verbs() -> None:
    files = {entry.name.removesuffix(".lua") for entry in FOLDER.iterdir()}
    assert files == {*VERBS, *SHARED}


def test_no_script_writes_a_number_in_a_way_that_loses_digits() -> None:
    _, text = library()
    assert "cjson" not in text
    assert "cmsgpack" not in text
    assert "tostring" not in text


def test_the_librarys_name_changes_with_its_text() -> None:
    name, text = library()
    assert re.fullmatch(r"billing_[0-9a-f]{8}", name)
    assert text.startswith(f"#!lua name={name}\n")


def test_l9_what_one_round_trip_carries_is_bounded_in_commands_and_in_bytes() -> None:
    """Given many short commands and some long ones, then each is sent once and in order; one too long goes alone."""
    short: list[Command] = [("GET", number) for number in range(1_001)]
    assert [len(part) for part in slices(short, 500)] == [500, 500, 1]
    assert [command for part in slices(short, 500) for command in part] == short
    long: list[Command] = [("SET", "key", "x" * size) for size in (600_000, 600_000, 100, 5_000_000, 100)]
    assert [len(part) for part in slices(long, 500)] == [1, 2, 1, 1]
    assert list(slices([], 500)) == []
