"""What commands print for people: every cell is the text that it was given."""

from __future__ import annotations

import pytest

from billing.cli.output import table


@pytest.mark.parametrize(
    "name", [":cat:", "a:cat:b", "[bold]", "[/]", "a\\", "\\[b]", "[link=x]y[/link]", "http://x:80/"]
)
def test_a_name_is_text_in_a_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it looks like: two clients with two names are shown with two names."""
    table(name, ("client", "credits"), [(name, 7)], numbers=1)

    title, *_, row = capsys.readouterr().out.rstrip().splitlines()
    assert title.split() == [name]
    assert row.split() == [name, "7"]
