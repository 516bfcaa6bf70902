"""Benchmarks of celery-billing against plain Celery, Redis and PostgreSQL, as ratios within one run: `make bench`.

A group of rows is a module with `rows(servers)`; `__main__` starts the servers and runs the groups, `report` and `plot`
show what they measured. A missed mark is a finding, not a failure: only a group that cannot run is one.
"""
