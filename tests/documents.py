"""The examples of the documents, as files: a Python block whose first line is `# <name>`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
_BLOCK: Final = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> dict[str, str]:
    """Return the named blocks of a page of `docs/`."""
    return dict(_BLOCK.findall((DOCS / page).read_text("utf-8")))
