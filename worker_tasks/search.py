"""`deep_search` reads the corpus with a regular expression; `premium_search` ranks its definitions against a question.

A deep search holds a unit for every file that it might read and is charged for those that it did. A premium search has
a fixed price. One that fails, as for a bad pattern, costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Final

from billing import BillableTask
from worker_tasks import corpus, scanning
from worker_tasks.app import app
from worker_tasks.definitions import Definition, definitions
from worker_tasks.errors import InvalidArgument
from worker_tasks.price_list import CORPUS_FILE_SCAN, PREMIUM_SEARCH
from worker_tasks.ranking import Index, words

QUERY_CHARACTERS_MAX: Final = 200
RESULTS_MAX: Final = 10


def _files_at_most(
    client_id: str,  # noqa: ARG001 - billing calls it with the task's arguments
    pattern: str,  # noqa: ARG001
    path_glob: str = "**/*.py",
    matches_max: int = 100,  # noqa: ARG001
) -> int:
    """Return the most files that a deep search may read: all that match the glob."""
    return len(corpus.select(path_glob))


@app.task(
    bind=True,
    base=BillableTask,
    sku=CORPUS_FILE_SCAN,
    reserve=_files_at_most,
    # Nothing else bounds a pattern with nested repetition. The soft limit ends it between two steps of the match.
    soft_time_limit=45,
    time_limit=60,
)
def deep_search(
    self: BillableTask,
    client_id: str,  # noqa: ARG001 - who pays
    pattern: str,
    path_glob: str = "**/*.py",
    matches_max: int = 100,
) -> dict[str, Any]:
    """Search the corpus' files for lines that match; return the matches and how many files were read."""
    expression = scanning.compile_pattern(pattern)
    bound = scanning.check_matches_max(matches_max)
    texts = corpus.current()
    files = ((name, texts.read(name)) for name in corpus.select(path_glob))
    found = scanning.scan(files, expression, bound)
    self.usage.record(quantity=found.files_scanned)
    return {"matches": [dataclasses.asdict(match) for match in found.matches], "files_scanned": found.files_scanned}


@app.task(base=BillableTask, sku=PREMIUM_SEARCH, soft_time_limit=45, time_limit=60)
def premium_search(client_id: str, query: object) -> list[dict[str, Any]]:  # noqa: ARG001 - who pays
    """Return the functions and classes of the corpus that answer `query` best, best first."""
    if not isinstance(query, str) or not 1 <= len(query) <= QUERY_CHARACTERS_MAX or not words(query):
        raise InvalidArgument("query", str(query)[:80], f"must be 1 to {QUERY_CHARACTERS_MAX} characters with a word")
    documents, index = _library()
    return [
        dataclasses.asdict(documents[position]) | {"score": round(score, 3)}
        for position, score in index.best(words(query), RESULTS_MAX)
    ]


@functools.cache
def _library() -> tuple[list[Definition], Index]:
    """Return the index of the corpus, built by the process's first search (about a second)."""
    texts = corpus.current()
    documents = [definition for name in corpus.select("**/*.py") for definition in definitions(name, texts.read(name))]
    return documents, Index(_words_of(document) for document in documents)


def _words_of(document: Definition) -> list[str]:
    # The name says most: it counts twice.
    return [*words(document.name) * 2, *words(document.summary), *words(document.file.removesuffix(".py"))]
