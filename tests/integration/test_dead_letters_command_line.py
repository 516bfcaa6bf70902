"""`billing dead-letters list|show|replay|discard` as a user types them, and as the page about them says."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys

import pytest

from billing.cli.dead_letters import harmless
from billing.core.settings import Settings, load
from tests.documents import DOCS, typed
from tests.integration.consuming import usage_log
from tests.integration.lettering import body_of, charge, refuse, states
from tests.terminal import ROOT, Terminal
from tests.usage_events import delivered

pytestmark = pytest.mark.integration

REFUSED = [
    (("dead-letters", "list", "--limit", "0"), ("--limit", "0", "must be from 1")),
    (("dead-letters", "list", "--limit", "1001"), ("limit", "1001", "must be from 1 to 1000")),
    (("dead-letters", "list", "--before", "-1"), ("--before", "-1")),
    (("dead-letters", "list", "--reason", "a\x00"), ("reason", "printable")),
    (("dead-letters", "list", "--queue", "\udcff"), ("queue", "printable")),
    (("dead-letters", "show", "99"), ("letter_id", "99", "is not a dead letter")),
    (("dead-letters", "show", "99", "--raw", "--json"), ("--raw", "--json", "one of the two")),
    (("dead-letters", "show", "x"), ("letter_id", "'x'")),
    (("dead-letters", "replay"), ("letter_id", "name letters, or give --all")),
    (("dead-letters", "replay", "1", "--all"), ("letter_id", "name letters, or give --all")),
    (("dead-letters", "replay", "1", "--reason", "x"), ("letter_id", "name letters, or give --all")),
    (("dead-letters", "replay", "99"), ("letter_id", "99", "is not a dead letter")),
    (("dead-letters", "replay", str(2**63)), ("letter_id",)),
    (("dead-letters", "discard", "--reason", "why"), ("letter_id", "name 1 to 10000 letters")),
    (("dead-letters", "discard", "99", "--reason", "why"), ("letter_id", "99", "is not a dead letter")),
    (("dead-letters", "discard", "1", "--reason", " "), ("reason", "must say why")),
]


@pytest.fixture
def settings(shop: Terminal) -> Settings:
    """Return the settings of the terminal's shop."""
    return load({}, shop.environment)


def test_what_is_refused_is_one_line(shop: Terminal, settings: Settings) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and letters unchanged."""
    refuse(settings, b"junk")
    before = shop.books(), states(settings)
    for arguments, names in REFUSED:
        shop.type(*arguments).refused(2, *names)
    assert (shop.books(), states(settings)) == before


def test_the_commands_print_what_their_page_says(shop: Terminal, settings: Settings) -> None:
    """Given an event of an unknown client, a cut one and junk, when the page is typed, then it is as the page says."""
    log = usage_log(settings)
    log.write([delivered(charge("brook", 30))])
    log.close()
    refuse(settings, b'{"version":1,"run_id":"019', reason="body: Input data was truncated")
    refuse(settings, b"\xff\xfe\x00", reason="body: JSON is malformed: invalid character (byte 0)")
    steps = typed(DOCS / "dead-letters.md")
    assert len(steps) == 7
    for step in steps:
        answer = shop.type(*shlex.split(step.command.removeprefix("billing ")))
        assert step.is_printed(answer.out), f"$ {step.command}\n{answer.out}{answer.err}"


def test_bytes_are_shown_whole_and_harmless_and_written_raw(shop: Terminal, settings: Settings) -> None:
    """A message is anybody's: a terminal shows it, and is told nothing by it; --raw and --json lose no byte."""
    nasty = "\x1b]0;owned\x07 line\r\n\u202e\u0000 é".encode()
    binary = bytes(range(256))
    [text_id] = refuse(settings, nasty)
    [binary_id] = refuse(settings, binary)
    [long_id] = refuse(settings, b"x" * 100_000)

    shown = shop.type("dead-letters", "show", str(text_id)).out
    assert "\\x1b]0;owned\\x07 line\\r\n\\u202e\\x00 é" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert shop.type("dead-letters", "show", str(text_id), "--json").json()["text"] == nasty.decode()
    assert base64.b64encode(binary).decode() in shop.type("dead-letters", "show", str(binary_id)).out.replace("\n", "")
    found = shop.type("dead-letters", "show", str(binary_id), "--json").json()
    assert base64.b64decode(found["base64"]) == binary
    assert (found["letter"]["letter_id"], found["letter"]["bytes"]) == (binary_id, 256)
    cut = shop.type("dead-letters", "show", str(long_id)).out
    assert len(cut) < 20_000
    assert f"billing dead-letters show {long_id} --raw" in cut


def test_raw_bytes_go_to_standard_output_as_they_came(shop: Terminal, settings: Settings) -> None:
    binary = bytes(range(256))
    [letter_id] = refuse(settings, binary)
    done = subprocess.run(
        [sys.executable, "-m", "billing.cli.main", "dead-letters", "show", str(letter_id), "--raw"],
        env={**os.environ, **shop.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, binary, b"")


def test_programs_get_json(shop: Terminal, settings: Settings) -> None:
    """Each command prints one JSON value that has all that the table has; a letter refused again is exit code 1."""
    good, bad = refuse(settings, body_of(charge("acme")), b"junk")
    listed = shop.type("dead-letters", "list", "--json").json()
    assert sorted(letter["letter_id"] for letter in listed["letters"]) == sorted([good, bad])
    assert (listed["states"], listed["more"]) == ({"open": 2}, False)
    assert listed["reasons"] == {"an older version did not know it": 2}
    assert shop.type("dead-letters", "list", "--state", "discarded", "--json").json()["letters"] == []

    replayed = shop.type("dead-letters", "replay", "--all", "--json")
    assert replayed.code == 1
    assert '"written": 1' in replayed.out
    again = shop.type("dead-letters", "replay", str(good), "--json").json()
    assert [(each["before"], each["outcome"]) for each in again["letters"]] == [("replayed", "duplicate")]
    [letter] = shop.type("dead-letters", "discard", str(bad), "--reason", "junk", "--json").json()
    assert (letter["state"], letter["remark"]) == ("discarded", "junk")
    shop.type("dead-letters", "replay", str(bad)).refused(2, "letter_id", "was discarded; give --discarded")
    assert shop.type("dead-letters", "replay", "--all", "--json").json() == {"outcomes": {}, "letters": [], "left": 0}
    assert shop.type("dead-letters", "replay", "--all").out == "no dead letters to replay\n"


def test_the_doctor_and_a_reconciliation_know_what_is_open(shop: Terminal, settings: Settings) -> None:
    """What is open is a warning that says what to do; what was replayed is no difference's explanation any more."""
    ids = refuse(settings, body_of(charge("acme", 2)), b"junk")

    def doctor() -> list[tuple[str, str, str]]:
        found = json.loads(shop.type("doctor", "--json").out)
        return [(each["verdict"], each["seen"], each["advice"]) for each in found if "dead letters" in each["seen"]]

    def explained() -> int:
        laws = json.loads(shop.type("reconcile", "--json").out)["laws"]
        [letters] = [law["compared"]["dead letters"] for law in laws if "dead letters" in law["compared"]]
        return int(letters)

    assert doctor() == [("warn", "2 dead letters are open", "billing dead-letters list")]
    assert explained() == 2
    shop.type("dead-letters", "replay", str(ids[0]))
    assert explained() == 1
    shop.type("dead-letters", "discard", str(ids[1]), "--reason", "junk")
    assert doctor() == [("ok", "0 dead letters", "")]
    assert explained() == 1


def test_servers_that_do_not_answer_are_one_line(terminal: Terminal) -> None:
    nowhere = "postgresql://billing:hunter2@127.0.0.1:1/billing"
    for command in (("list",), ("show", "1"), ("replay", "--all"), ("discard", "1", "--reason", "why")):
        terminal.type("dead-letters", *command, BILLING_DATABASE_URL=nowhere).refused(1, "billing_database_url")


@pytest.mark.parametrize(
    ("given", "shown"), [("a\tb", "a\\tb"), ("\x9b31m", "\\x9b31m"), ("\U000e0001", "\\U000e0001")]
)
def test_what_a_terminal_would_obey_is_escaped(given: str, shown: str) -> None:
    assert harmless(given) == shown
