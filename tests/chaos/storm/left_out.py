"""What a fault raises that does not strike."""

from __future__ import annotations


class LeftOut(Exception):
    """A fault found nobody to befall, or may not strike now; the reason is told."""
