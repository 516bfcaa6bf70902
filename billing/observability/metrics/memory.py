"""The numbers of one worker: rows of doubles in memory that its main process and its pool's children share.

A process writes its own row alone: row 0 is the main process's, row n + 1 that of the pool's child n. Billiard gives no
two living children one index, so that a child's successor goes on in its row: nothing is lost when one is recycled or
killed, and nothing grows (L9). Places are fixed beforehand; who dies in the middle of a write leaves no half of one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Final

#: Children of one worker that are counted (L9). What has no row yet takes no memory.
CHILDREN_MAX: Final = 1_024
_BYTES: Final = 8
#: The first double of a row: the process that wrote there last; 0: nobody ever has.
_PID: Final = 0


class Memory:
    """Rows of `width` doubles, all 0 in the beginning. Who is forked from its maker shares it; it is gone with them."""

    def __init__(self, width: int) -> None:
        self._width = width + 1
        # Nobody's file: there is nothing to find, to be in the way of a user's own metrics, or to be left behind.
        self._map = mmap.mmap(-1, _BYTES * self._width * (CHILDREN_MAX + 1))
        self._doubles = memoryview(self._map).cast("d")

    def row(self, number: int) -> memoryview[float]:
        """Return the row of this process, which writes there from now on."""
        row = self._doubles[number * self._width : (number + 1) * self._width]
        row[_PID] = os.getpid()
        return row[_PID + 1 :]

    def rows(self) -> Iterator[tuple[int, Sequence[float]]]:
        """Return the rows that were ever used, each with the process that used it last."""
        pids = self._doubles[:: self._width].tolist()
        for number, pid in enumerate(pids):
            if pid:
                first = number * self._width + 1
                yield int(pid), self._doubles[first : first + self._width - 1].tolist()
