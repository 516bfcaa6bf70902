"""The comments `#: …` that stand above names in the code: what they mean, where they are defined."""

from __future__ import annotations

from sphinx.pycode import ModuleAnalyzer


def comments(module: str, owner: str = "") -> dict[str, str]:
    """Return name → comment, of a module's names or of a class's."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {name: " ".join(" ".join(lines).split()) for (of, name), lines in found.items() if of == owner}
