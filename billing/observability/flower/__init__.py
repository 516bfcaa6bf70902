"""Flower with billing's columns and pages, for a `flowerconfig.py`: two lines, `import` and `flower.attach()`."""

from billing.observability.flower.attaching import COLUMNS, SUPPORTED, attach

__all__ = ["COLUMNS", "SUPPORTED", "attach"]
