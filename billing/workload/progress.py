"""Shows how far a run is: a bar that moves on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

LINE_SECONDS: Final = 5.0


class Steps:
    """Announces steps, and remembers how long each took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._begun = time.monotonic()
        self._step_begun = self._begun
        self._step = ""
        self.seconds: dict[str, float] = {}

    def begin(self, step: str, text: str) -> None:
        """End the step before, and begin the next one."""
        self.end()
        self._step, self._step_begun = step, time.monotonic()
        self.say(text)

    def end(self) -> None:
        """End the current step."""
        if self._step:
            self.seconds[self._step] = self.seconds.get(self._step, 0.0) + time.monotonic() - self._step_begun
            self._step = ""

    def say(self, text: str | Text) -> None:
        """Print a line with the time since the beginning. What looks like markup is text: it may be a file's name."""
        line = Text.assemble((f"{time.monotonic() - self._begun:6.1f} s", "dim"), "  ", text)
        self.console.print(line, soft_wrap=True)

    def summary(self) -> str:
        """Return the steps and their seconds."""
        self.end()
        parts = [f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items()]
        return ", ".join([*parts, f"total {time.monotonic() - self._begun:.1f} s"])


class TaskProgress:
    """How many of `total` tasks (or rows) have ended, and how many of their events the log has."""

    def __init__(self, steps: Steps, total: int, *, what: str = "tasks") -> None:
        self._steps = steps
        console = steps.console
        self._total, self._what = total, what
        self._line_at = time.monotonic() + LINE_SECONDS
        self._bars = Progress(
            TextColumn("{task.description:>16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._terminal = console.is_terminal
        self._ended: TaskID = self._bars.add_task(f"{what} ended", total=total)
        self._logged: TaskID = self._bars.add_task("charges logged", total=None)

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars."""
        self._bars.stop()

    def show(self, *, ended: int, succeeded: int, logged: int) -> None:
        """Show the numbers as they are now."""
        self._bars.update(self._ended, completed=ended)
        self._bars.update(self._logged, completed=logged, total=max(succeeded, logged) or None)
        if not self._terminal and time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            self._steps.say(f"{ended:,} of {self._total:,} {self._what} ended, {logged:,} charges in the log")
