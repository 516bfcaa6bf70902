"""How a simulation fails: a law does not hold."""

from __future__ import annotations


class LawBroken(BaseException):
    """A law does not hold. The text says which, of what, and how the run is repeated.

    No `except Exception` of the code under test may take it for an error of its own.
    """
