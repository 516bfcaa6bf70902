"""Buckets on a cluster: exchanges with its nodes, and what becomes of those of a node that is bad or replaced."""
