"""A refusal is one bounded line, whatever was refused: it goes to terminals, logs and tables."""

from __future__ import annotations

import pytest

from billing.core.errors import InvalidValue
from billing.core.parsers import flag, listening
from billing.core.printable import SHOWN_MAX, printable, shown
from billing.core.settings import without_password


class Wicked:
    """A value whose own text cannot be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def nested() -> object:
    """Return a list in a list in a list, deeper than Python goes."""
    found: object = 0
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [10**5_000, "x" * 10_000, "a\nb\x1b[2J\u202e", "\ud800", nested(), Wicked(), b"\0", None],
    ids=["digits", "long", "escapes", "surrogate", "nested", "wicked", "bytes", "none"],
)
def test_any_value_is_shown_in_one_bounded_line(value: object) -> None:
    line = str(InvalidValue("columns\n", value, "must be one of: a\u2028b"))
    assert line.isprintable()
    assert line.startswith("columns\\n: ")
    assert line.endswith(": must be one of: a\\u2028b")
    assert len(line) <= SHOWN_MAX + 100


def test_an_ordinary_value_is_shown_as_it_is() -> None:
    assert str(InvalidValue("credits", "1.5", "must be whole")) == "credits: '1.5': must be whole"
    assert (shown(None), shown(5), printable("é")) == ("None", "5", "é")


@pytest.mark.parametrize("parse", [flag, listening])
def test_a_number_of_too_many_digits_is_refused_as_any_other(parse: object) -> None:
    with pytest.raises(InvalidValue, match="that cannot be shown: must be"):
        parse("key", 10**5_000)  # type: ignore[operator]


def test_the_rest_of_a_password_behind_a_slash_is_not_shown_as_a_path() -> None:
    """Given an unescaped password that begins with digits, then what comes behind its slash is read as the path."""
    assert without_password("postgresql://billing:12/34hunter2@db/billing") == "postgresql://…"
    assert without_password("postgresql://u:p@db/billing") == "postgresql://db/billing"
