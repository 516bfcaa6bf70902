"""The documents' examples: Python blocks as files (their first line is `# <name>`), console blocks as what is typed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
_BLOCK: Final = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CONSOLE: Final = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROMPT: Final = "$ "
#: Stands for what differs from run to run; alone on a line, for any lines.
ANY: Final = "…"


def blocks(page: str) -> dict[str, str]:
    """Return the named blocks of a page of `docs/`."""
    return dict(_BLOCK.findall((DOCS / page).read_text("utf-8")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Typed:
    """A command of a document, and what the document says that it prints."""

    command: str
    output: str

    def is_printed(self, text: str) -> bool:
        """Whether a text is what the document says, but for blank lines and the spaces at the ends of lines."""
        lines = [
            r"(?:.*\n)*?" if line == ANY else ".*".join(re.escape(part) for part in line.split(ANY)) + r"\n"
            for line in _tidy(self.output)
        ]
        return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _tidy(text))) is not None


def typed(page: Path) -> list[Typed]:
    """Return what a page's console blocks have one type, in order."""
    found: list[Typed] = []
    for block in _CONSOLE.findall(page.read_text("utf-8")):
        for part in re.split(rf"^{re.escape(_PROMPT)}", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Typed(command=command, output=output))
    return found


def _tidy(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]
