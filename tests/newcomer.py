"""Does what a page says, command by command, as somebody does who has never seen it, and compares what is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from billing.embedded.process import Child
from tests.documents import Typed, typed
from tests.waiting import LIMIT_SECONDS

#: What changes the shell, and so holds for all that is typed after it.
_STAYS: Final = ("cd ", "export ", "eval ")
#: What looks at books that are written a moment after the work: one looks again.
_LOOKS: Final = (" usage ", " balance ", " reconcile", " explain ")
_JOB: Final = re.compile(r"%(\d+)")
#: How a job ends that is asked to: well, or, after it has put everything away, by the very signal.
_STOPPED: Final = (0, 128 + signal.SIGTERM)


class Newcomer:
    """A shell in a directory. `close` ends what was left running in it."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BILLING_"))}
        self._directory, self._environment = directory, {**inherited, **environment}
        self._before: list[str] = []
        self._jobs: list[Child] = []

    def follow(self, page: Path) -> None:
        """Type what a page says, and find what it says is printed."""
        for step in typed(page):
            if step.command.startswith("kill "):
                for number in dict.fromkeys(_JOB.findall(step.command)):
                    assert self._jobs[int(number) - 1].stop(60) in _STOPPED, step.command
            elif step.command.endswith(" &"):
                self._begin(step)
            else:
                self._do(step)
                if step.command.startswith(_STAYS):
                    self._before.append(step.command)

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
            # `diff` says by 1 that it has found something.
            assert done.returncode == step.command.startswith("diff "), told
            if step.is_printed(done.stdout):
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
        assert not step.output or step.is_printed(text), f"{text}\nand not:\n{step.output}"

    def _shell(self, command: str) -> list[str]:
        return ["bash", "-c", "\n".join(["set -e", *self._before, command])]
