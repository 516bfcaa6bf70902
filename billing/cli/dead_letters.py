"""`billing dead-letters list|show|replay|discard`."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, cast

import click

from billing import admin
from billing.cli.amount import CREDITS, NEGATIVE_NUMBERS
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.errors import InvalidValue
from billing.core.printable import printable
from billing.fulfillment.letter import DeadLetter, OpenedLetter, Outcome, ReplayedLetter, State

_COLUMNS: Final = ("id", "state", "refused (UTC)", "queue", "reason", "times", "bytes")
#: L9: characters of a letter's text that are shown, and letters of `replay --all` that are named one by one.
_SHOWN_MAX: Final = 16_384
_NAMED_MAX: Final = 20
_WORDS: Final[dict[Outcome, str]] = {
    "written": "written to the usage history",
    "duplicate": "duplicate: its run is in the usage history",
    "marker": "is the marker of a rebuild, and was taken as one",
    "dropped": "is the dry run of an unknown client, which no log has",
    "refused": "refused again",
    "discarded": "left as it is: it was discarded meanwhile",
}


@click.group(name="dead-letters", epilog="Example: billing dead-letters list")
def dead_letters() -> None:
    """Look at what the usage log refused; replay it, or discard it."""


@dead_letters.command(name="list", context_settings=NEGATIVE_NUMBERS, epilog="Example: billing dead-letters list")
@click.option("--state", type=click.Choice(["open", "replayed", "discarded", "all"]), default="open", show_default=True)
@click.option("--reason", default="", help="Only those with this text in their reason.")
@click.option("--queue", default="", help="Only those of this usage queue.")
@click.option("--before", type=CREDITS, default=None, help="Go on before this id: older ones.")
@click.option("--limit", type=CREDITS, default=50, show_default=True, help="At most 1,000.")
@json_option
def list_(
    state: str,
    reason: str,
    queue: str,
    before: int | None,
    limit: int,
    as_json: bool,  # noqa: FBT001 - click gives flags by name
) -> None:
    """List letters, newest first, and how many there are by reason."""
    chosen = None if state == "all" else cast("State", state)
    found = admin.dead_letters(settings(), state=chosen, reason=reason, queue=queue, before=before, limit=limit)
    if as_json:
        emit_json(found)
        return
    if found.letters:
        table(None, _COLUMNS, [_cells(letter) for letter in found.letters], numbers=2)
    counted = ", ".join(f"{count:,} {name}" for name, count in found.states.items())
    click.echo(f"dead letters: {counted or 'none'}")
    for kind, count in found.reasons.items():
        click.echo(f"{count:9,}  {kind}")
    if found.more:
        click.echo(f"there are more: billing dead-letters list --before {found.letters[-1].letter_id}")


@dead_letters.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing dead-letters show 17")
@click.argument("letter_id", type=CREDITS)
@click.option("--raw", is_flag=True, help="Write the bytes as they came, and nothing else.")
@json_option
def show(letter_id: int, raw: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show a letter and what came, as text where it is text and in base64 where it is not."""
    if raw and as_json:
        raise InvalidValue("--raw", "--json", "give one of the two")
    found = admin.dead_letter(settings(), letter_id)
    if raw:
        sys.stdout.buffer.write(found.body)
        sys.stdout.flush()
    elif as_json:
        emit_json({"letter": found.letter, "sha256": found.digest.hex(), **_content(found)})
    else:
        _print_letter(found)


@dead_letters.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing dead-letters replay 17 18")
@click.argument("letter_ids", metavar="[ID]...", type=CREDITS, nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that are open.")
@click.option("--reason", default="", help="With --all: only those with this text in their reason.")
@click.option("--discarded", is_flag=True, help="Also those that were discarded.")
@click.option("--unverified", is_flag=True, help="Also those that were refused for their signature: may be forged.")
@json_option
def replay(
    letter_ids: tuple[int, ...],
    all_: bool,  # noqa: FBT001
    reason: str,
    discarded: bool,  # noqa: FBT001
    unverified: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Write letters to the usage history, as if they came now.

    Safe to repeat: what is written already is a duplicate. A letter that is refused again stays, with its new reason,
    and keeps no other waiting; then the exit code is 1.
    """
    if bool(letter_ids) is all_ or (reason and not all_):
        raise InvalidValue("letter_id", list(letter_ids), "name letters, or give --all, to which --reason belongs")
    report = _Report(name_all=not all_)
    done = admin.replay_dead_letters(
        settings(),
        None if all_ else letter_ids,
        reason=reason,
        discarded=discarded,
        unverified=unverified,
        tell=(lambda _: None) if as_json else report.tell,
    )
    if as_json:
        emit_json(done)
    else:
        counted = ", ".join(f"{count:,} {name}" for name, count in done.outcomes.items())
        total = sum(done.outcomes.values())
        click.echo(f"{total:,} dead letters: {counted}" if total else "no dead letters to replay")
        if done.left:
            click.echo(f"{done.left:,} left: refused for their signature, they may be forged (see --unverified)")
    if done.refused:
        click.get_current_context().exit(1)


@dead_letters.command(
    context_settings=NEGATIVE_NUMBERS, epilog='Example: billing dead-letters discard 17 --reason "a test of ours"'
)
@click.argument("letter_ids", metavar="ID...", type=CREDITS, nargs=-1)
@click.option("--reason", required=True, help="Why; it is kept with the letter.")
@json_option
def discard(letter_ids: tuple[int, ...], reason: str, as_json: bool) -> None:  # noqa: FBT001
    """Put letters aside: they stay as they are, and only `replay --discarded` takes them."""
    found: Sequence[DeadLetter] = admin.discard_dead_letters(settings(), letter_ids, reason=reason)
    if as_json:
        emit_json(found)
        return
    for letter in found:
        click.echo(f"dead letter {letter.letter_id} is discarded: {letter.remark}")


class _Report:
    """Prints what became of letters: each where they were named, else those that were refused, up to a bound."""

    def __init__(self, *, name_all: bool) -> None:
        self._name_all = name_all
        self._named = 0

    def tell(self, done: Sequence[ReplayedLetter]) -> None:
        """Print a batch."""
        for letter in done:
            if not self._name_all and (letter.outcome != "refused" or self._named >= _NAMED_MAX):
                continue
            self._named += 1
            already = "already replayed: " if letter.before == "replayed" else ""
            reason = f": {letter.reason}" if letter.reason else ""
            click.echo(f"dead letter {letter.letter_id}: {already}{_WORDS[letter.outcome]}{reason}")


def _cells(letter: DeadLetter) -> tuple[object, ...]:
    said = f"{letter.reason} ({letter.state}: {letter.remark})" if letter.remark else letter.reason
    return (
        str(letter.letter_id),
        letter.state,
        letter.refused_at,
        harmless(letter.queue),
        harmless(said),
        letter.refusals,
        letter.bytes,
    )


def _content(found: OpenedLetter) -> dict[str, str]:
    """Return the bytes as a JSON value that has all of them."""
    try:
        return {"text": found.body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(found.body).decode()}


def _print_letter(found: OpenedLetter) -> None:
    letter = found.letter
    times = "once" if letter.refusals == 1 else f"{letter.refusals:,} times"
    click.echo(f"dead letter {letter.letter_id} of queue {harmless(letter.queue)} is {letter.state}")
    click.echo(f"  reason    {harmless(letter.reason)}")
    click.echo(f"  refused   {times}, first {_when(letter.received_at)}, last {_when(letter.refused_at)} UTC")
    if letter.ended_at is not None:
        click.echo(f"  {letter.state:<9} {_when(letter.ended_at)} UTC: {harmless(letter.remark)}")
    click.echo(f"  sha256    {found.digest.hex()}")
    [(kind, content)] = _content(found).items()
    click.echo(f"  {letter.bytes:,} bytes, as {kind}:")
    click.echo(harmless(content[:_SHOWN_MAX]))
    if len(content) > _SHOWN_MAX:
        click.echo(f"… cut here; all of it: billing dead-letters show {letter.letter_id} --raw")


def harmless(text: str) -> str:
    """Return a text that no terminal takes for a command: what cannot be printed is escaped as in Python."""
    return "\n".join(map(printable, text.split("\n")))


def _when(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
