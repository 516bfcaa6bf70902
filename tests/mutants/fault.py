"""A short hand for catalogues: the faults of one file, with the tests that most of them are left to."""

from __future__ import annotations

import dataclasses

from tests.mutants.mutant import Mutant


@dataclasses.dataclass(frozen=True, slots=True)
class Faults:
    """Makes the mutants of a file: called with a name, the laws, a text that stands there once, and another one."""

    file: str
    tests: tuple[str, ...]

    def __call__(
        self,
        name: str,
        laws: str,
        text: str,
        becomes: str,
        *tests: str,
        hangs: bool = False,
        explained: str = "",
    ) -> Mutant:
        """Return a mutant; `tests` in the place of the file's."""
        return Mutant(
            name=name,
            laws=laws,
            file=self.file,
            text=text,
            becomes=becomes,
            tests=tests or self.tests,
            hangs=hangs,
            explained=explained,
        )


def faults(file: str, *tests: str) -> Faults:
    """Return what makes the mutants of a file."""
    return Faults(file, tests)


def scripts(name: str, *tests: str) -> Faults:
    """Return what makes the mutants of a Lua script; its tests are run on Valkey alone."""
    return Faults(f"billing/credits/lua/{name}.lua", tuple(on_valkey(test) for test in tests))


def on_valkey(test: str) -> str:
    """Return a selection of the buckets' contract on one of its servers: the others run the same scripts."""
    return f"tests/contract/test_{test}.py -k valkey"
