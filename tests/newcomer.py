"""Does what a page says, command by command, as somebody does who has never seen it, and compares what is printed."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from billing.embedded.process import Child
from tests.documents import Typed, blocks, typed
from tests.waiting import LIMIT_SECONDS

#: What changes the shell, and so holds for all that is typed after it.
_STAYS: Final = ("cd ", "export ", "eval ")
#: What looks at books that are written a moment after the work: one looks again.
_LOOKS: Final = (" usage ", " balance ", " reconcile", " explain ", " alerts list ", " show ")
_ASSIGNED: Final = re.compile(r"(\w+)=\$\(")
_JOB: Final = re.compile(r"%(\d+)")
#: How a job ends that is asked to: well, or, after it has put everything away, by the very signal.
_STOPPED: Final = (0, 128 + signal.SIGTERM)


class Newcomer:
    """A shell in a directory. `close` ends what was left running in it.

    `masked`: the page was printed by one run and is compared but for ids, times and ports. `instead`: words of the
    page's commands, and what is typed for them.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        masked: bool = False,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self._masked, self._instead = masked, dict(instead or {})
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BILLING_"))}
        self._directory, self._inherited, self._given = directory, inherited, environment
        self._before: list[str] = []
        self._jobs: list[Child] = []

    def follow(self, page: Path, givens: Mapping[str, Callable[[], object]] | None = None) -> None:
        """Type what a page says, and find what it says is printed; `givens` make so what it takes for given."""
        self.write(page)
        for said in typed(page):
            for given in said.givens:
                (givens or {})[given]()
            step = dataclasses.replace(said, command=self._translated(said.command))
            if step.command.startswith("kill "):
                for number in dict.fromkeys(_JOB.findall(step.command)):
                    assert self._jobs[int(number) - 1].stop(60) in _STOPPED, step.command
            elif step.command.endswith(" &"):
                self._begin(step)
            elif found := _ASSIGNED.match(step.command):
                # Once: what it asks for may be something else afterwards.
                value = self.do(f'{step.command}; printf %s "${found[1]}"')
                self._before.append(f"{found[1]}={shlex.quote(value)}")
            else:
                self._do(step)
                if step.command.startswith(_STAYS):
                    self._before.append(step.command)

    @property
    def _environment(self) -> dict[str, str]:
        return {**self._inherited, **self._given}

    def write(self, page: Path) -> None:
        """Write the files that a page shows: blocks whose first line is their name."""
        for name, text in blocks(page).items():
            (self._directory / name).write_text(text)

    def do(self, command: str) -> str:
        """Type a command that is on no page; return what it prints."""
        done = subprocess.run(
            self._shell(command),
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """End everything, the servers last."""
        for job in reversed(self._jobs):
            job.stop(20)

    def _do(self, step: Typed) -> None:
        """Run a command to its end."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            done = subprocess.run(
                self._shell(step.command),
                cwd=self._directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            told = f"$ {step.command}\n{done.stdout}{done.stderr}"
            refused = step.output.startswith("Error: ")
            # `diff` says by 1 that it has found something.
            as_said = bool(done.returncode) is (refused or step.command.startswith("diff "))
            if as_said and step.is_printed(done.stderr if refused else done.stdout, masked=self._masked):
                return
            again = any(word in f"{step.command} " for word in _LOOKS) and time.monotonic() < deadline
            assert again, f"{told}\nand not:\n{step.output}"
            time.sleep(0.2)

    def _begin(self, step: Typed) -> None:
        """Run a command beside the others, and go on once it says that it is ready."""
        log = self._directory / f"job-{len(self._jobs) + 1}.log"
        command = self._shell(f"exec {step.command.removesuffix(' &')}")
        job = Child.spawn(log.stem, command, environ=self._environment, cwd=self._directory, log=log, grace_seconds=20)
        self._jobs.append(job)
        deadline = time.monotonic() + LIMIT_SECONDS
        while not re.search(r"^ready; | ready\.$", text := log.read_text("utf-8", "replace"), re.MULTILINE):
            goes_on = job.running and time.monotonic() < deadline
            assert goes_on, f"$ {step.command}\n{text}"
            time.sleep(0.1)
        assert not step.output or step.is_printed(text, masked=self._masked), f"{text}\nand not:\n{step.output}"

    def _translated(self, command: str) -> str:
        for words, typed_for_them in self._instead.items():
            command = command.replace(words, typed_for_them)
        return command

    def _shell(self, command: str) -> list[str]:
        return ["bash", "-c", "\n".join(["set -e", *self._before, command])]
