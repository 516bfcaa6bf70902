"""The plots of one run, as SVG for a page: marks reached, alternatives, and one chart per kind of growth.

Each is an image without scripts, readable in light and in dark, with a title and a description for who cannot see it;
the same run gives the same bytes. Whoever reads in a table what is drawn here loses nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.rows import Row

_MET: Final = "#0072b2"
_MISSED: Final = "#d55e00"
#: Told apart without red and green (Okabe and Ito), on white and on black.
_LINES: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: A bar is cut here, so that one row far beyond its mark does not flatten the others.
SHOWN_MAX: Final = 3.0
_WIDTH: Final = 900
#: More than so many times between the least and the most: the axis is logarithmic.
_WIDE: Final = 20.0
_LABELS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000)
_DARK: Final = """inline:
@media (prefers-color-scheme: dark) {
 .background, .plot > .background { fill: #16181c !important; }
 text, .title, .legends text, .axis text, .axis.x text { fill: #e8e8e8 !important; }
 .axis .line, .axis .guides { stroke: #5a5f66 !important; }
}"""


def marks(rows: Sequence[Row], *, title: str) -> bytes:
    """Return the bars of the rows that have a mark, and the line at 1 that each should pass."""
    marked = [(row, row.score) for row in rows if row.score is not None]
    said = [f"{row.name}: {score:.2f}, {'met' if row.met else 'missed'}" for row, score in marked]
    chart = _bars(title, "measured ÷ mark (from 1 on: met)", count=len(marked))
    chart.config.range = (0, SHOWN_MAX)
    # A horizontal bar's values lie on what pygal calls y.
    chart.y_labels = [0, 0.5, 1, 1.5, 2, 2.5, SHOWN_MAX]
    chart.y_labels_major = [1]
    _fill(chart, [(row.name, min(score, SHOWN_MAX), f"{score:.2f}", bool(row.met)) for row, score in marked])
    return _rendered(chart, title, said)


def alternatives(rows: Sequence[Row], *, title: str) -> bytes:
    """Return the bars of the alternatives that were measured: how many times as fast ours is, on a logarithmic axis."""
    measured = [row for row in rows if row.lacks and row.value > 0]
    said = [f"{row.name}: {row.value:.2g} times" for row in measured]
    chart = _bars(title, "our rate ÷ its rate (logarithmic; from 1 on: ours is faster)", count=len(measured))
    chart.config.logarithmic = True
    chart.config.range = (0.1, 100)
    chart.config.zero = 0.1
    chart.y_labels = [0.1, 0.3, 1, 3, 10, 30, 100]
    chart.y_labels_major = [1]
    _fill(chart, [(row.name, min(max(row.value, 0.1), 100), f"{row.value:.2g}", row.value >= 1) for row in measured])
    return _rendered(chart, title, said)


def growths(rows: Sequence[Row], *, title: str) -> Mapping[str, bytes]:
    """Return one chart of lines for each kind of size: what grows with it, as a ratio to the smallest."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if row.series:
            kinds.setdefault(row.sizes, []).append(row)
    return {sizes: _lines(found, title=f"{title}, by {sizes}", sizes=sizes) for sizes, found in kinds.items()}


def _lines(rows: Sequence[Row], *, title: str, sizes: str) -> bytes:
    pygal = _pygal()
    where = sorted({point.size for row in rows for point in row.series})
    ratios = [point.ratio for row in rows for point in row.series]
    said = [f"{row.name}, {row.unit[2:]}: {row.series[-1].ratio:.2f} times" for row in rows]
    chart = pygal.Line(
        **_common(title),
        x_title=f"{sizes} (one step is not as far as the next)",
        legend_at_bottom=True,
        legend_at_bottom_columns=1,
        truncate_legend=-1,
        height=300 + 24 * len(rows),
        dots_size=4,
    )
    if max(ratios) / min(ratios) > _WIDE:
        chart.config.logarithmic = True
        chart.y_labels = [label for label in _LABELS if label <= 2 * max(ratios) and 2 * label >= min(ratios)]
    else:
        chart.config.range = (0, max(2.0, 1.1 * max(ratios)))
    chart.x_labels = [f"{size:,}" for size in where]
    for row in rows:
        found = {point.size: point.ratio for point in row.series}
        chart.add(f"{row.name.partition(', by ')[0]}, {row.unit[2:]}", [found.get(size) for size in where])
    return _rendered(chart, title, said)


def _bars(title: str, x_title: str, *, count: int) -> Any:
    return _pygal().HorizontalBar(
        **_common(title), x_title=x_title, show_legend=False, height=90 + 30 * max(count, 4), print_values=True
    )


def _fill(chart: Any, bars: Sequence[tuple[str, float, str, bool]]) -> None:
    """Add bars (name, value, what is printed, whether it is good) from the bottom up: the first stands at the top."""
    chart.x_labels = [name for name, *_ in reversed(bars)]
    values = []
    for _, value, printed, good in reversed(bars):
        values.append({"value": value, "color": _MET if good else _MISSED, "formatter": _saying(printed)})
    chart.add("", values)


def _saying(printed: str) -> Any:
    return lambda _: printed


def _common(title: str) -> dict[str, Any]:
    pygal = _pygal()
    style = pygal.style.Style(
        background="#ffffff",
        plot_background="#ffffff",
        foreground="#222222",
        foreground_strong="#111111",
        foreground_subtle="#777777",
        colors=_LINES,
        font_family="sans-serif",
        major_guide_stroke_dasharray="0",
        label_font_size=11,
        major_label_font_size=11,
        value_font_size=11,
        legend_font_size=12,
        title_font_size=14,
        opacity=1,
    )
    return {
        "style": style,
        "css": ["file://style.css", "file://graph.css", _DARK],
        "js": [],
        "title": title,
        "width": _WIDTH,
        "no_prefix": True,
    }


def _rendered(chart: Any, title: str, said: Sequence[str]) -> bytes:
    chart.add_xml_filter(_described(title, "; ".join(said)))
    made: bytes = chart.render()
    return made


def _pygal() -> Any:
    """Import pygal without the finder that it leaves behind, of which Python 3.11 warns at every later import."""
    import pygal  # noqa: PLC0415 - only here is the finder looked after
    import pygal.style  # noqa: PLC0415 - the same

    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]
    return pygal


def _described(title: str, description: str) -> Any:
    """Return a filter: no scripts, nothing for a pointer that moves over the plot, but words for who cannot see it."""

    def filtered(root: Any) -> Any:
        for parent in list(root.iter()):
            for child in list(parent):
                kind = str(child.tag).rpartition("}")[2]
                if kind in {"script", "desc", "title"}:
                    parent.remove(child)
        root.set("role", "img")
        root.set("aria-label", f"{title}. {description}")
        return root

    return filtered
