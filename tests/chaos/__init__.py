"""Faults against a running fleet."""
