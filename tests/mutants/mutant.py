"""What a mutant is: one text of one file, replaced, and the tests that must then fail. Pure values."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path


class Broken(Exception):
    """The catalogue is wrong, not the project: a text that is not there once, a selection that does not exist."""


class Result(enum.StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    #: The tests did not end. It counts as killed only where the mutant is marked to hang.
    HUNG = "hung"
    #: It does not import, or no server takes it: nothing was tested.
    BROKEN = "broken"
    #: Its tests do not pass without it either, or fail each time by another error: a server's or the machine's fault.
    UNCLEAR = "unclear"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A fault. `tests`: selections of pytest, fastest first, each maybe with ` -k words`."""

    name: str
    #: The laws that it breaks: "L1 L2".
    laws: str
    file: str
    #: What stands in the file, once, and what stands there instead.
    text: str
    becomes: str
    tests: tuple[str, ...]
    #: Why no test can or need notice it, where that is so.
    explained: str = ""
    #: Whether it shows by a test that does not end.
    hangs: bool = False

    def applied_to(self, source: str) -> str:
        """Return a file's text with the fault in it. Raises `Broken`."""
        count = source.count(self.text)
        if count != 1:
            raise Broken(f"mutant {self.name!r}: its text stands {count} times in {self.file}, not once: {self.text!r}")
        return source.replace(self.text, self.becomes)

    def check(self, root: Path) -> None:
        """See that the fault can be made, and that its tests exist. Raises `Broken`."""
        path = root / self.file
        if not path.is_file():
            raise Broken(f"mutant {self.name!r}: there is no {self.file}")
        self.applied_to(path.read_text(encoding="utf-8"))
        for selection in self.tests:
            where, _, test = selection.partition(" -k ")[0].partition("::")
            if not (root / where).is_file():
                raise Broken(f"mutant {self.name!r}: there is no {where}")
            if test and f"def {test.partition('[')[0]}(" not in (root / where).read_text(encoding="utf-8"):
                raise Broken(f"mutant {self.name!r}: {where} has no {test}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a mutant: `by` names the test that failed."""

    mutant: Mutant
    room: str
    result: Result
    seconds: float
    by: str = ""

    @property
    def is_killed(self) -> bool:
        """Whether the tests noticed it."""
        return self.result is Result.KILLED or (self.result is Result.HUNG and self.mutant.hangs)

    @property
    def is_left(self) -> bool:
        """Whether it is a survivor that nothing explains, or nothing is known of it."""
        unknown = self.result in {Result.BROKEN, Result.UNCLEAR}
        return not self.is_killed and (unknown or not self.mutant.explained)
