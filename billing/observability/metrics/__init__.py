"""Metrics for Prometheus: what there is by name, and who counts it."""
