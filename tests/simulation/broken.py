"""How a simulation fails: a law does not hold."""

from __future__ import annotations


class LawBroken(AssertionError):
    """A law does not hold. The text says which, of what, and how the run is repeated."""
