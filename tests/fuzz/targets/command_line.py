"""Any arguments, where no server answers: exit code 0, 1 or 2, one line that says what is wrong, never a traceback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import chdir
from functools import cache
from typing import Final

import click
from click.testing import CliRunner

from billing.cli.main import COMMANDS, billing
from tests.fuzz.laws import SECRET, as_text, check_line, hold
from tests.fuzz.target import Target

#: Commands that start servers or serve: they end when they are told to.
_SERVE: Final = frozenset({"up", "demo", "exporter", "replay", "completion"})
_ARGUMENTS_MAX: Final = 10
#: Nobody listens there, so that every command ends where its arguments have been read.
NOWHERE: Final = {
    "BILLING_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    "BILLING_RESULT_URL": f"redis://:{SECRET}@127.0.0.1:1/1",
    "BILLING_DATABASE_URL": f"postgresql://billing:{SECRET}@127.0.0.1:1/billing",
    "BILLING_BROKER_URL": f"amqp://guest:{SECRET}@127.0.0.1:1//",
    "BILLING_STRIPE_SANDBOX_URL": "http://127.0.0.1:1",
    "BILLING_REDIS_TIMEOUT_SECONDS": "0.05",
    "BILLING_CONNECTION_FILE": "none.json",
}


@cache
def _leaves() -> tuple[tuple[str, ...], ...]:
    """Return every command that ends by itself, with its groups."""
    found: list[tuple[str, ...]] = []

    def walk(group: click.Group, path: tuple[str, ...], context: click.Context) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                walk(command, (*path, name), context)
            elif command is not None and name not in _SERVE and (*path, name) != ("stripe", "sandbox"):
                found.append((*path, name))

    walk(billing, (), click.Context(billing))
    return tuple(found)


def check(data: bytes) -> None:
    """Run the command of the first byte with arguments that 0xff parts."""
    number, *words = data.split(b"\xff")
    arguments = [as_text(word).replace("\0", "") for word in words[:_ARGUMENTS_MAX]]
    # An app would be imported, and a path written to, wherever that may be.
    if any("/" in word or ".." in word or word.startswith(("-A", "--app")) for word in arguments):
        return
    path = _leaves()[(number[0] if number else 0) % len(_leaves())]
    runner = CliRunner(env=NOWHERE)
    with tempfile.TemporaryDirectory() as place, chdir(place):
        answer = runner.invoke(billing, [*path, *arguments])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    hold(that=answer.exit_code in (0, 1, 2), but=(path, arguments, answer.exit_code))
    hold(that=SECRET not in answer.output and "Traceback" not in answer.output, but=answer.output)
    if answer.exit_code == 1 and answer.stdout:
        return  # a check does not hold, and says so in its own words, as `billing doctor`
    if answer.exit_code:
        lines = [line for line in answer.stderr.split("\n") if line]
        # What click refuses comes with a usage line and a hint before it.
        hold(that=1 <= len(lines) <= 6 and any(line.startswith("Error: ") for line in lines), but=answer.stderr)
        if not any(line.startswith("Usage: ") for line in lines):
            check_line(lines[-1])


def seeds() -> Iterator[bytes]:
    """Yield every command with what it takes at its best."""
    for number, path in enumerate(_leaves()):
        yield bytes([number])
        yield b"\xff".join([bytes([number]), b"acme", b"5", b"--json"])
        command: click.Command = billing
        for name in path:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), name)
            assert found is not None
            command = found
        options = [option for option in command.params if isinstance(option, click.Option)]
        words = [word.encode() for option in options for word in (option.opts[0], *(() if option.is_flag else ("5",)))]
        yield b"\xff".join([bytes([number]), b"acme", *words[: _ARGUMENTS_MAX - 1]])


TARGET = Target(
    check=check,
    seeds=seeds,
    words=(
        b"\xff",
        b"--json",
        b"--from",
        b"--to",
        b"--client",
        b"--key",
        b"--month",
        b"2026-11",
        *(name.encode() for name in COMMANDS),
    ),
    length_max=512,
)
