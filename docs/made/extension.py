"""The step between pages and Sphinx: fills in what is made from the code, and resolves links to folders.

A page says `<!-- from the code: settings -->` where a part belongs. Guarantee: a part that does not exist, or a link to
a folder that does not, ends the build.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform

from docs.made import alerts, commands, events, exits, metrics, python_api, schedule, settings

#: Name of a part → what makes its Markdown.
PARTS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings.settings,
    "commands": commands.commands,
    "metrics": metrics.metrics,
    "usage event": events.usage_event,
    "task event": events.task_event,
    "schedule": schedule.entries,
    "alerts": alerts.kinds,
    "exit codes": exits.codes,
    "package": python_api.package,
    "admin": python_api.administration,
}
MARK: Final = re.compile(r"<!-- from the code: ([a-z ]+) -->")


def filled(text: str) -> str:
    """Return a page with its parts in place. Raises `ExtensionError` for one that nothing makes."""

    def part(found: re.Match[str]) -> str:
        if found[1] not in PARTS:
            raise ExtensionError(f"from the code: {found[1]!r}: must be one of: {', '.join(PARTS)}")
        return PARTS[found[1]]()

    return MARK.sub(part, text)


def _fill(_app: Sphinx, _docname: str, source: list[str]) -> None:
    source[0] = filled(source[0])


class Folders(SphinxPostTransform):
    """Resolves a link to a folder: to its README where it has one, else to nothing but its name."""

    default_priority = 8  # just before MyST looks for pages and headings of that name, and warns

    def run(self, **_: Any) -> None:
        """Replace what leads to a folder of the repository."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node["reftype"] == "myst" and node["refdomain"] is None and node["reftarget"]:
                self._resolve(node, node.get("refdoc", self.env.docname))

    def _resolve(self, node: addnodes.pending_xref, page: str) -> None:
        root = Path(self.env.srcdir).resolve()
        folder = (root / page).parent.joinpath(node["reftarget"]).resolve()
        if not folder.is_dir():
            return
        shown = node[0].deepcopy()
        docname = (folder / "README").relative_to(root).as_posix()
        if docname in self.env.found_docs:
            uri = self.app.builder.get_relative_uri(page, docname)
            shown = nodes.reference("", "", shown, internal=True, refuri=uri)
        node.replace_self(shown)


def setup(app: Sphinx) -> dict[str, Any]:
    """Attach both steps."""
    app.connect("source-read", _fill)
    app.add_post_transform(Folders)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
