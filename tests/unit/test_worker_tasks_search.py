"""Searching the corpus: what is read is what is counted, and every input is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker_tasks import corpus, scanning
from worker_tasks.definitions import Definition, definitions
from worker_tasks.errors import InvalidArgument
from worker_tasks.ranking import Index, words

SOURCE = '''\
class PageStore(Base):
    """Keeps pages.

    More of it.
    """

    async def put_page(
        self, page, *, retries=3
    ):
        r"""Write one page."""

def bare(x): return x
'''


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a corpus of five files, three of which are to be found."""
    for name in ("a.py", "pkg/b.py", "pkg/deep/c.py", "pkg/tests/d.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\nneedle two\n")
    monkeypatch.setenv(corpus.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("path_glob", "names"),
    [
        ("**/*.py", ("a.py", "pkg/b.py", "pkg/deep/c.py")),
        ("*.py", ("a.py",)),
        ("pkg/*.py", ("pkg/b.py",)),
        ("pkg/**", ("pkg/b.py", "pkg/deep/c.py")),
        ("**/?.txt", ()),
        ("notes.*", ("notes.txt",)),
        ("../*", ()),
    ],
)
@pytest.mark.usefixtures("small")
def test_given_a_glob_when_files_are_selected_then_tests_and_outsiders_are_left_out(
    path_glob: str, names: tuple[str, ...]
) -> None:
    assert corpus.select(path_glob) == names


@pytest.mark.parametrize("path_glob", ["", "x" * 201, "**/" * 7, 3])
@pytest.mark.usefixtures("small")
def test_given_a_glob_outside_the_bounds_when_selected_then_it_is_refused_by_name(path_glob: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^path_glob: "):
        corpus.select(path_glob)  # type: ignore[arg-type]


def test_given_no_variable_when_asked_then_the_corpus_is_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(corpus.VARIABLE, raising=False)
    names = corpus.select("**/*.py")
    assert {"argparse.py", "asyncio/tasks.py"} <= set(names)
    assert not any("site-packages" in name or "/test/" in f"/{name}" for name in names)


def test_given_a_directory_that_is_none_when_asked_then_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(corpus.VARIABLE, "/nowhere")
    with pytest.raises(InvalidArgument, match="WORKER_TASKS_CORPUS: '/nowhere'"):
        corpus.current()


def test_given_enough_matches_when_scanning_then_later_files_are_neither_read_nor_counted() -> None:
    read = []

    def files() -> object:
        for name in "abc":
            read.append(name)
            yield name, "needle one\nneedle two\n"

    found = scanning.scan(files(), scanning.compile_pattern("needle"), 3)  # type: ignore[arg-type]
    assert [(match.file, match.line) for match in found.matches] == [("a", 1), ("a", 2), ("b", 1)]
    assert found.files_scanned == 2
    assert read == ["a", "b"]


def test_given_no_match_when_scanning_then_every_file_counts() -> None:
    found = scanning.scan([("a", "x"), ("b", "")], scanning.compile_pattern("needle"), 1)
    assert found == scanning.Found(matches=(), files_scanned=2)


def test_given_a_very_long_line_when_scanning_then_only_its_beginning_is_looked_at() -> None:
    """L9: the part of a line that a pattern sees is bounded, and so is the text that is kept."""
    line = " " * 10 + "x" * scanning.LINE_CHARACTERS_MAX + "needle"
    assert not scanning.scan([("a", line)], scanning.compile_pattern("needle"), 1).matches
    (match,) = scanning.scan([("a", line)], scanning.compile_pattern("x"), 1).matches
    assert match.text == "x" * scanning.TEXT_CHARACTERS_MAX


@pytest.mark.parametrize("pattern", ["", "(", "x" * 501, "a{99999999999}", None])
def test_given_a_bad_pattern_when_compiled_then_it_is_refused_by_name(pattern: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^pattern: "):
        scanning.compile_pattern(pattern)


@pytest.mark.parametrize("matches_max", [0, -1, 1_001, True, "5", 1.0])
def test_given_a_bad_bound_when_checked_then_it_is_refused_by_name(matches_max: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^matches_max: "):
        scanning.check_matches_max(matches_max)


def test_given_a_source_when_read_then_its_definitions_come_with_their_summaries() -> None:
    assert list(definitions("m.py", SOURCE)) == [
        Definition(file="m.py", line=1, name="PageStore", summary="Keeps pages."),
        Definition(file="m.py", line=7, name="put_page", summary="Write one page."),
        Definition(file="m.py", line=12, name="bare", summary=""),
    ]


def test_given_identifiers_when_split_then_their_words_are_found() -> None:
    assert words("parse_HTTPHeader2 getURL") == ["parse", "http", "header", "2", "get", "url"]


def test_given_a_query_when_ranked_then_rare_words_and_short_documents_win() -> None:
    index = Index([["page", "store"], ["page", "page", "cache", "of", "many", "words"], ["page"], ["store", "rare"]])
    assert [position for position, _ in index.best(["rare", "page"], 2)] == [3, 2]
    assert index.best(["unknown"], 4) == []


def test_given_equal_scores_when_ranked_then_the_order_of_the_documents_decides() -> None:
    index = Index([["page"]] * 5)
    assert [position for position, _ in index.best(["page"], 3)] == [0, 1, 2]


def test_given_no_documents_when_ranked_then_nothing_is_found() -> None:
    assert Index([]).best(["page"], 3) == []
