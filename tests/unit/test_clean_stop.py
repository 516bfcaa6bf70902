"""A clean stop is asked for once, by whatever comes first, though a second signal may come at any line of the first."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

#: Runs handlers of SIGTERM with a SIGINT before each line that Python runs in them, one line later each time.
INTERRUPTED: Final = """
import signal, sys
from billing.embedded.lifetime import Stopped, clean_stop

def stopped(interrupt_at):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if event == "line" and frame.f_code is not watched:
            lines += 1
            if lines == interrupt_at:
                signal.raise_signal(signal.SIGINT)
        return trace
    def attempt():
        sys.settrace(trace)
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            sys.settrace(None)
    watched = attempt.__code__
    with clean_stop():
        try:
            attempt()
        except Stopped as asked:
            signal.raise_signal(signal.SIGHUP)  # ignored: the stop is under way
            return lines, asked.number.name
    return lines, None

interrupt_at = 0
while True:
    interrupt_at += 1
    lines, name = stopped(interrupt_at)
    print(interrupt_at, name, flush=True)
    if lines < interrupt_at:
        break
"""


def test_a_second_signal_at_any_line_of_the_first_ones_handler_neither_hangs_nor_is_a_second_stop() -> None:
    """Given SIGTERM, when SIGINT comes at each line of its handler in turn, then there is one stop, each time."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    assert len(done) > 2
    assert {line.split()[1] for line in done} <= {"SIGTERM", "SIGINT"}
    assert done[-1].split()[1] == "SIGTERM", "the last had no line left to interrupt"
