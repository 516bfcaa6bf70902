"""Every command, whatever state its servers are in: words and an exit code, never a traceback, never a password.

A command that is new must be named here: the walk goes over all there are.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import pytest

from billing.cli.main import billing
from tests.integration.test_command_line import every_command
from tests.terminal import NOWHERE, SECRET, Answer, Terminal

pytestmark = pytest.mark.integration

#: These run until somebody ends them, or take a minute: their tests are elsewhere.
STANDING: Final = frozenset({("up",), ("demo",), ("replay",), ("exporter",), ("stripe", "sandbox")})
OUTPUT: Final = "OUTPUT"
RUN: Final = "01920000-0000-7000-8000-000000000001"
#: What each command is given: a client, a task, a letter that nobody has.
GIVEN: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("migrate",): (),
    ("doctor",): (),
    ("explain",): ("task-1",),
    ("client", "add"): ("acme",),
    ("client", "close"): ("acme",),
    ("client", "export"): ("acme", "--output", OUTPUT),
    ("client", "link"): ("acme", "cus_1", "--unchecked"),
    ("client", "list"): (),
    ("client", "overdraft"): ("acme", "5"),
    ("client", "resume"): ("acme",),
    ("client", "show"): ("acme",),
    ("client", "suspend"): ("acme",),
    ("client", "webhook"): ("acme", "https://127.0.0.1:1/"),
    ("price", "list"): (),
    ("price", "set"): ("page", "5", "--unit", "page"),
    ("meter", "add"): ("pages", "--sku", "page"),
    ("meter", "list"): (),
    ("grant",): ("acme", "5"),
    ("void",): ("1", "--reason", "test"),
    ("adjust", "credits"): ("acme", "5", "--reason", "test"),
    ("adjust", "usage"): (RUN, "--credits", "-1", "--reason", "test"),
    ("allowance", "add"): ("acme", "5", "--every", "month"),
    ("allowance", "end"): ("1",),
    ("allowance", "list"): (),
    ("top-up", "answer"): ("1", "granted"),
    ("top-up", "off"): ("acme",),
    ("top-up", "set"): ("acme", "10", "--below-credits", "5"),
    ("top-up", "show"): ("acme",),
    ("balance",): ("acme",),
    ("quote",): ("acme", "page", "1"),
    ("dry-run",): (),
    ("usage",): ("acme",),
    ("partitions", "attach"): ("2020-01",),
    ("partitions", "detach"): ("2020-01",),
    ("partitions", "list"): (),
    ("partitions", "make"): (),
    ("parked", "cancel"): ("1",),
    ("parked", "list"): (),
    ("dead-letters", "discard"): ("1", "--reason", "test"),
    ("dead-letters", "list"): (),
    ("dead-letters", "replay"): ("1",),
    ("dead-letters", "show"): ("1",),
    ("alerts", "list"): (),
    ("alerts", "resend"): ("1",),
    ("reconcile",): (),
    ("rebuild",): ("acme",),
    ("receipt",): ("acme",),
    ("sync", "confirm"): (),
    ("sync", "errors"): (),
    ("sync", "flush"): ("acme",),
    ("sync", "plan"): (),
    ("sync", "push"): (),
    ("sync", "reconcile"): (),
    ("sync", "adopt"): ("--all", "--reason", "test"),
    ("sync", "resolve"): ("1", "--as", "write-off", "--reason", "test"),
    ("sync", "show"): ("1",),
    ("sync", "status"): (),
    ("stripe", "clock"): ("--advance-days", "1"),
    ("stripe", "invoices"): ("acme",),
    ("stripe", "setup"): (),
    ("completion",): ("bash",),
}
EXPLAINED: Final = ("explain", "task-1")
#: How Celery's command names itself before ours.
PROGRAM: Final = re.compile(r"Usage: \S.*? billing(?= )")
#: A command waits no longer than this for a server.
SHORT: Final = {
    "BILLING_REDIS_TIMEOUT_SECONDS": "1",
    "BILLING_DATABASE_TIMEOUT_SECONDS": "2",
    "BILLING_PUBLISH_TIMEOUT_SECONDS": "2",
    "BILLING_STRIPE_SANDBOX_URL": "http://127.0.0.1:1",
}


@pytest.fixture
def commands(tmp_path: Path) -> list[tuple[str, ...]]:
    """Return every command line; fails for a command of which this file knows nothing."""
    paths = [path for path in every_command(billing) if path and path not in STANDING]
    groups = {path[:-1] for path in paths}
    found = [path for path in paths if path not in groups]
    assert set(found) == set(GIVEN), "each command has its arguments here"
    output = str(tmp_path / "export.jsonl")
    return [(*path, *(output if one == OUTPUT else one for one in GIVEN[path])) for path in found]


def said(answer: Answer, line: tuple[str, ...]) -> None:
    """Check that a command said what it had to say: an exit code that is known, words, no password."""
    assert answer.code in (0, 1, 2), (line, answer)
    assert "Usage:" not in answer.err, f"what this file gives to {line} is wrong: {answer.err}"
    assert SECRET not in answer.out + answer.err, line
    assert "Traceback" not in answer.out + answer.err, line
    if answer.code:
        assert answer.out.strip() or answer.err.strip(), line
    if answer.code and not answer.out.strip():
        assert answer.err.strip().splitlines()[-1].startswith("Error: "), (line, answer.err)


def test_given_no_server_that_answers_then_each_command_says_which_in_words(
    terminal: Terminal, commands: list[tuple[str, ...]]
) -> None:
    away = Terminal({**terminal.environment, **NOWHERE, **SHORT}, terminal.directory)
    for line in commands:
        answer = away.type(*line)
        said(answer, line)
        assert answer.code == int(line[0] != "completion"), (line, answer)


def test_given_wrong_passwords_then_each_command_says_whose_and_none_is_shown(
    terminal: Terminal, commands: list[tuple[str, ...]]
) -> None:
    wrong = {
        name: with_password(terminal.environment[name])
        for name in ("BILLING_REDIS_URL", "BILLING_DATABASE_URL", "BILLING_BROKER_URL")
    }
    refused = Terminal({**terminal.environment, **wrong, **SHORT}, terminal.directory)
    for line in commands:
        said(refused.type(*line), line)


def test_given_a_database_that_was_never_migrated_then_each_command_says_what_to_run(
    bare: Terminal, commands: list[tuple[str, ...]]
) -> None:
    bare = Terminal({**bare.environment, **SHORT}, bare.directory)
    for line in commands:
        if line[0] in {"migrate", "completion", "dry-run"}:
            continue  # they make the tables, need none, or ask Redis alone
        answer = bare.type(*line)
        said(answer, line)
        if line[0] != "stripe":  # what only Stripe knows
            assert "billing migrate" in answer.out + answer.err, (line, answer)


def test_given_an_empty_database_then_each_command_says_so_in_words(
    terminal: Terminal, commands: list[tuple[str, ...]]
) -> None:
    """Given neither clients nor usage, then lists are empty and names are unknown, also in JSON."""
    empty = Terminal({**terminal.environment, **SHORT}, terminal.directory)
    for line in commands:
        if line[:2] != ("client", "add"):
            said(empty.type(*line), line)
            if line[0] != "completion":
                said(empty.type(*line, "--json"), line)


def with_password(url: str) -> str:
    """Return an address whose user and password the server does not know."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"nobody:{SECRET}@{parts.hostname}:{parts.port}"))


def test_given_nothing_to_list_then_a_list_says_so_in_place_of_an_empty_table(terminal: Terminal) -> None:
    empty = Terminal({**terminal.environment, **SHORT}, terminal.directory)

    assert empty.type("client", "list").out == "no clients (billing client add CLIENT)\n"
    assert empty.type("price", "list").out == "no prices (billing price set SKU CREDITS --unit UNIT)\n"
    for line, none in (
        (("alerts", "list"), "no alerts"),
        (("allowance", "list"), "no allowances"),
        (("parked", "list"), "no parked tasks"),
        (("dead-letters", "list"), "dead letters: none"),
        (("dry-run",), "no dry runs are recorded"),
    ):
        assert empty.type(*line).out == f"{none}\n"


def test_given_a_pipe_then_no_colours_and_no_cut_lines(shop: Terminal) -> None:
    """Given output that is read by a program, then it has no escapes, whatever the terminal around it can show."""
    for line in (("balance", "acme"), ("client", "list"), ("doctor",), ("reconcile",), ("grant", "nobody", "5")):
        answer = shop.run(*line, TERM="xterm-256color", COLUMNS="40")
        assert "\x1b" not in answer.out + answer.err, line
        assert "…" not in answer.out, line


def test_given_a_half_typed_line_then_commands_options_and_clients_complete_it(shop: Terminal) -> None:
    """Given words as a shell hands them over, then what they may become; and nothing where no server answers."""
    shop.type("client", "add", "acme-two")

    def offered(words: str, **environment: str) -> set[str]:
        given = {"_BILLING_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        answer = shop.run(**given, **environment)
        assert (answer.code, answer.err) == (0, "")
        return {line.partition(",")[2] for line in answer.out.splitlines() if line}

    assert "client" in offered("billing cl")
    assert {"add", "list"} <= offered("billing client ")
    assert "--json" in offered("billing balance acme --")
    assert offered("billing balance ac") == {"acme", "acme-two"}
    assert offered("billing balance acme-") == {"acme-two"}
    assert offered("billing balance 100%") == set()
    assert offered("billing alerts list --client acme-") == {"acme-two"}
    assert offered("billing balance ac", **NOWHERE) == set()


def test_given_a_shell_then_its_script_completes_in_it(terminal: Terminal) -> None:
    """Given bash itself, when it has read what `billing completion bash` prints, then it knows how to complete."""
    script = terminal.type("completion", "bash").out
    asked = subprocess.run(
        ["bash", "-c", script + "\ncomplete -p billing"], capture_output=True, text=True, timeout=60, check=True
    )

    assert "-F _billing_completion billing" in asked.stdout
    for shell in ("zsh", "fish"):
        assert "_BILLING_COMPLETE" in terminal.type("completion", shell).out


def test_given_celerys_own_command_then_it_has_the_same_commands(shop: Terminal) -> None:
    """Given `celery -A shop billing …`, then its commands, answers and exit codes are those of `billing …`."""
    (shop.directory / "shop.py").write_text(
        "import celery, billing\napp = celery.Celery('shop', broker='memory://')\nbilling.setup(app)\n"
    )
    for line in (
        ("--help",),
        ("balance", "acme", "--json"),
        ("alerts", "list"),
        ("balance", "nobody"),
        ("balance",),
        EXPLAINED,
    ):
        own = shop.run("-A", "shop", *line)
        celerys = shop.spawn("celery", "-A", "shop", "billing", *line)
        assert (own.code, own.out) == (celerys.code, PROGRAM.sub("Usage: billing", celerys.out)), line
        assert own.err.splitlines()[-1:] == celerys.err.splitlines()[-1:], line
