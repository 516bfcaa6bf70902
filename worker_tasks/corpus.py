"""The text that is searched: the files below one directory, listed once per process in a fixed order.

The directory is `WORKER_TASKS_CORPUS`; without it the sources of Python's standard library, which every machine has.
Left out are installed packages (`site-packages`, `dist-packages`), tests (`test`, `tests`, `idle_test`), caches and
hidden directories, files over `FILE_BYTES_MAX`, and links. The corpus is taken not to change while a process lives.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sysconfig
from pathlib import Path
from typing import Final

from worker_tasks.errors import InvalidArgument

VARIABLE: Final = "WORKER_TASKS_CORPUS"
LEFT_OUT: Final = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
FILES_MAX: Final = 5_000
FILE_BYTES_MAX: Final = 4_194_304
GLOB_CHARACTERS_MAX: Final = 200
#: Each star may try every length of a path, so a few of them are all that is needed, and all that is taken.
GLOB_STARS_MAX: Final = 6


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A directory and the paths of its files below it, sorted, with `/` between the parts."""

    root: Path
    names: tuple[str, ...]

    def read(self, name: str) -> str:
        """Return a file's text; bytes that are not UTF-8 become replacement characters."""
        return (self.root / name).read_text(encoding="utf-8", errors="replace")


def current() -> Corpus:
    """Return this process's corpus. Raises `InvalidArgument` when its directory is not one, or has too many files."""
    return _listed(os.environ.get(VARIABLE) or sysconfig.get_path("stdlib"))


def select(path_glob: str) -> tuple[str, ...]:
    """Return the names of the current corpus that match: `*` and `?` within a part, `**/` over any number of parts."""
    return _selected(current(), path_glob)


@functools.lru_cache(maxsize=4)
def _listed(directory: str) -> Corpus:
    root = Path(directory)
    if not root.is_dir():
        raise InvalidArgument(VARIABLE, directory, "must be a directory")
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(".")]
        for file in files:
            path = Path(folder, file)
            if not path.is_symlink() and path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
                names.append(path.relative_to(root).as_posix())
        if len(names) > FILES_MAX:
            raise InvalidArgument(VARIABLE, directory, f"must have at most {FILES_MAX} files")
    return Corpus(root=root, names=tuple(sorted(names)))


@functools.lru_cache(maxsize=32)
def _selected(corpus: Corpus, path_glob: str) -> tuple[str, ...]:
    matches = _compiled(path_glob).fullmatch
    return tuple(name for name in corpus.names if matches(name))


def _compiled(path_glob: object) -> re.Pattern[str]:
    """Translate a glob; what it does not know (`[`, `{`) stands for itself."""
    if not isinstance(path_glob, str) or not 1 <= len(path_glob) <= GLOB_CHARACTERS_MAX:
        raise InvalidArgument(
            "path_glob", str(path_glob)[:80], f"must be text of 1 to {GLOB_CHARACTERS_MAX} characters"
        )
    pieces = re.findall(r"\*\*/|\*+|\?|[^*?]+", path_glob)
    if sum("*" in piece for piece in pieces) > GLOB_STARS_MAX:
        raise InvalidArgument("path_glob", path_glob[:80], f"must have at most {GLOB_STARS_MAX} stars")
    known = {"**/": "(?:.*/)?", "?": "[^/]", "**": ".*"}
    return re.compile(
        "".join(known.get(p) or ("[^/]*" if p.startswith("*") else re.escape(p)) for p in pieces), re.DOTALL
    )
