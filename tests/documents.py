"""The documents' examples: Python blocks as files (their first line is `# <name>`), console blocks as what is typed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
_BLOCK: Final = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: What the reader of a page cannot do, and its test does before what follows: a comment, which no reader sees.
_GIVEN: Final = re.compile(r"<!-- given: (.+?) -->")
_CONSOLE: Final = re.compile(rf"^```console\n(.*?)^```$|{_GIVEN.pattern}", re.DOTALL | re.MULTILINE)
_FENCE: Final = re.compile(r"^```([a-z{}]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROMPT: Final = "$ "
#: Stands for what differs from run to run; alone on a line, for any lines.
ANY: Final = "…"


def blocks(page: str | Path) -> dict[str, str]:
    """Return the named blocks of a page, or of one of `docs/`."""
    return dict(_BLOCK.findall((DOCS / page).read_text("utf-8")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fence:
    """A fenced block of a page: its language, and what is in it."""

    language: str
    text: str

    @property
    def first_line(self) -> str:
        """Its first line, by which it is named."""
        return self.text.partition("\n")[0]


def fences(page: Path) -> list[Fence]:
    """Return every fenced block of a page, in order."""
    return [Fence(language=language, text=text) for language, text in _FENCE.findall(page.read_text("utf-8"))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Typed:
    """A command of a document, and what the document says that it prints. `givens` are so before it is typed."""

    command: str
    output: str
    givens: tuple[str, ...] = ()

    def is_printed(self, text: str, *, masked: bool = False) -> bool:
        """Whether a text is what the document says, but for blank lines and the spaces at the ends of lines.

        `masked`: nor do ids, times, dates, ports and the width of columns count.
        """
        lines = [
            r"(?:.*\n)*?" if line == ANY else ".*".join(re.escape(part) for part in line.split(ANY)) + r"\n"
            for line in _tidy(self.output, masked=masked)
        ]
        return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _tidy(text, masked=masked))) is not None


def typed(page: Path) -> list[Typed]:
    """Return what a page's console blocks have one type, in order."""
    found: list[Typed] = []
    givens: list[str] = []
    for block, given in _CONSOLE.findall(page.read_text("utf-8")):
        if given:
            givens.append(given)
        for part in re.split(rf"^{re.escape(_PROMPT)}", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            while command.endswith("\\"):
                further, _, output = output.partition("\n")
                command = command.removesuffix("\\") + further.lstrip()
            found.append(Typed(command=command, output=output, givens=tuple(givens)))
            givens.clear()
    return found


#: What differs from run to run, and what stands for it; in this order.
_MASKS: Final = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    # An id or a time that a narrow cell breaks into lines.
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{3}(?= )|\b[0-9a-f](?:-[0-9a-f]{4}){2}-(?= )|(?<= )[0-9a-f]{12}(?= )"), "<id>"),
    (re.compile(r"(?<= )\d\d:\d\d:\d\d(?= )"), "<time>"),
    (re.compile(r"\b((?:mtr_test|prod|price|cus|sub|in)_)[0-9a-f]+\b"), r"\1<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\+00:00)?)?"), "<time>"),
    (re.compile(r"\b\d{1,2} (?:[A-Z][a-z]{2,8}) 20\d\d\b"), "<time>"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "<port>"),
    (re.compile(r"\b\d+(?:\.\d+)?( s| min)\b"), r"<n>\1"),
    (re.compile(r"[─━]+"), "─"),
    (re.compile(r" {2,}"), "  "),
)


def _tidy(text: str, *, masked: bool) -> list[str]:
    for pattern, instead in _MASKS if masked else ():
        text = pattern.sub(instead, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]
