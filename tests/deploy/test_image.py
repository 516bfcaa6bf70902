"""What `deploy/Dockerfile` builds from: files that are there, locked versions that the tests ran with, no root."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tests.deploy.files import DEPLOY, ROOT

DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
REQUIREMENTS: Final = ROOT / "requirements"


def pins(path: Path) -> set[str]:
    """Return the versions of a lock file, as name==version."""
    return set(re.findall(r"^([a-z0-9.-]+(?:\[[a-z,]+\])?==[^ ;]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def copied() -> list[str]:
    """Return what is copied from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_is_let_into_the_build() -> None:
    let = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in let), source
    assert set(let) == set(copied())


def test_nothing_that_is_copied_holds_secrets_or_data() -> None:
    assert not any(source.startswith(("deploy", ".")) for source in copied())


def test_the_images_versions_are_those_that_the_tests_ran_with() -> None:
    runtime = pins(REQUIREMENTS / "runtime.txt")
    assert len(runtime) > 30
    assert runtime <= pins(REQUIREMENTS / "celery-5.7.txt")
    assert "--require-hashes -r runtime.txt" in DOCKERFILE


def test_the_image_has_every_dependency_and_no_tools_of_the_tests() -> None:
    """Given another dependency, run: make lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {pin.partition("==")[0].partition("[")[0] for pin in pins(REQUIREMENTS / "runtime.txt")}

    def named(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=;~ ]", each)[0] for each in requirements}

    assert named(project["project"]["dependencies"]) <= names
    assert not names & named(project["dependency-groups"]["dev"])


def test_it_runs_as_nobody_in_particular() -> None:
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert len(user) == 1
    assert int(user[0]) > 999
