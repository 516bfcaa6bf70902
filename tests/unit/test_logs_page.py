"""docs/logs.md: its lines are what is written, its words are those of the code, its configuration works as printed."""

from __future__ import annotations

import ast
import json
import logging
import logging.config
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from billing.core.change_log import log_change
from billing.observability.logs import JsonFormatter
from billing.sinks.sync.increment import State
from billing.task.outcome import Outcome
from tests.documents import DOCS, blocks

TEXT = (DOCS / "logs.md").read_text("utf-8")
ROOT = Path(__file__).parents[2]
LINES = re.findall(r"^\[\S+ \S+ (\w+)/\S+\] (billing: .*)$", TEXT, re.MULTILINE)
#: What tells, and which of its arguments is the word.
TELLING = {"log_change": 1, "tell_run": 1, "tell_hold": 1, "tell_delivery": 1}


def written(change: str, fields: dict[str, int | str]) -> tuple[str, dict[str, object]]:
    """Return a change as text and as JSON."""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[assignment, method-assign]
    logger = logging.getLogger("unheard-page")
    logger.addHandler(handler)
    log_change(logger, change, logging.ERROR, **fields)
    logger.removeHandler(handler)
    return heard[0].getMessage(), json.loads(JsonFormatter().format(heard[0]))


@pytest.mark.parametrize("line", [line for _, line in LINES])
def test_the_lines_are_written_so(line: str) -> None:
    _, change, *parts = shlex.split(line)
    fields = dict(part.split("=", 1) for part in parts)
    assert written(change, dict(fields))[0] == line


def test_the_object_is_written_so() -> None:
    (sample,) = re.findall(r"^```json\n(.*)\n```$", TEXT, re.MULTILINE)
    shown = json.loads(sample)
    own = {"level", "logger", "process", "message", "change", "time"}
    fields = {name: value for name, value in shown.items() if name not in own}
    _, found = written(shown["change"], fields)
    assert list(found) == list(shown)
    assert {name: found[name] for name in (*fields, "message", "change")} == {
        name: shown[name] for name in (*fields, "message", "change")
    }


def test_every_word_that_the_code_tells_is_on_the_page() -> None:
    """Given all calls that tell a change, then each word of theirs stands in the table, and no other does."""
    words = {state.value for state in State} | {Outcome.METER_ONLY.value, Outcome.DRY_RUN.value, Outcome.CHARGED.value}
    for path in (ROOT / "billing").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TELLING:
                word = node.args[TELLING[node.func.id]]
                words |= {word.value} if isinstance(word, ast.Constant) and isinstance(word.value, str) else set()
    table = "".join(line for line in TEXT.splitlines(keepends=True) if line.startswith("| `billing."))
    assert set(re.findall(r"`([a-z_]+)`", table)) == words


def test_the_configuration_works_as_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(blocks("logs.md")["logs.py"])
    says = "import logs, logging; logging.getLogger('shop').info('hello'); logging.getLogger('billing.runs').info('no')"
    done = subprocess.run(
        [sys.executable, "-c", says],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = done.stderr.splitlines()
    assert (json.loads(line)["message"], json.loads(line)["logger"]) == ("hello", "shop")


def test_the_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 60
