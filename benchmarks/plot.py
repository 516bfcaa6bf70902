"""The plot of one run: a bar per row that has a mark, and the line at 1 that each should pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.rows import Row

_MET: Final = "#2a7f4f"
_MISSED: Final = "#b3403a"
#: A bar is cut here, so that one row far beyond its mark does not flatten the others.
SHOWN_MAX: Final = 3.0


def svg(rows: Sequence[Row], *, title: str) -> bytes:
    """Return the plot as SVG, without scripts: it may stand in a page."""
    marked = [(row, row.score) for row in rows if row.score is not None]
    pygal = _pygal()
    chart = pygal.HorizontalBar(
        style=pygal.style.Style(
            background="white", plot_background="white", major_guide_stroke_dasharray="0", label_font_size=11
        ),
        js=[],
        title=title,
        x_title="measured ÷ mark (from 1 on: met)",
        show_legend=False,
        height=80 + 34 * max(len(marked), 4),
        width=1000,
        print_values=True,
        range=(0, SHOWN_MAX),
    )
    # A horizontal bar's values lie on what pygal calls y.
    chart.y_labels = [0, 0.5, 1, 1.5, 2, 2.5, SHOWN_MAX]
    chart.y_labels_major = [1]
    # From the bottom up: the first row stands at the top.
    chart.x_labels = [row.name for row, _ in reversed(marked)]
    chart.add("", [_bar(row, score) for row, score in reversed(marked)])
    chart.add_xml_filter(_without_scripts)
    made: bytes = chart.render()
    return made


def _pygal() -> Any:
    """Import pygal without the finder that it leaves behind, of which Python 3.11 warns at every later import."""
    import pygal  # noqa: PLC0415 - only here is the finder looked after
    import pygal.style  # noqa: PLC0415 - the same

    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]
    return pygal


def _without_scripts(root: Any) -> Any:
    """Take out what pygal would do when a pointer moves over the plot."""
    for parent in list(root.iter()):
        for script in [child for child in parent if str(child.tag).rpartition("}")[2] == "script"]:
            parent.remove(script)
    return root


def _bar(row: Row, score: float) -> dict[str, object]:
    return {
        "value": min(score, SHOWN_MAX),
        "label": row.against,
        "color": _MET if row.met else _MISSED,
        "formatter": lambda _: f"{score:.2f}",
    }
