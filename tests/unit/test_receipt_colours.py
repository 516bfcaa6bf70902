"""The receipt's colours, as its style sheet has them: every text can be read, in the light and in the dark."""

from __future__ import annotations

import importlib.resources
import re

import pytest

_CSS = importlib.resources.files("billing.receipts").joinpath("templates/receipt.css").read_text("utf-8")
_ROOTS = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)\}", _CSS)]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_there_are_two_schemes_with_the_same_colours() -> None:
    light, dark = _ROOTS
    assert light.keys() == dark.keys() == {"ink", "quiet", "rule", "paper", "bar", "back", "found"}
    assert luminance(light["paper"]) == pytest.approx(1)
    assert luminance(dark["paper"]) < 0.02
    # Elsewhere a colour is a name, so that both schemes have it.
    assert re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r":root \{[^}]*\}", "", _CSS)) == []


@pytest.mark.parametrize("colours", _ROOTS, ids=["light", "dark"])
def test_text_and_bars_stand_out(colours: dict[str, str]) -> None:
    """WCAG 2.2 AA: 4.5 for text, on the paper and on the line that a link led to; 3 for what a chart draws."""
    for text in ("ink", "quiet"):
        for behind in ("paper", "found"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for bar in ("bar", "back"):
        assert contrast(colours[bar], colours["paper"]) >= 3, bar
