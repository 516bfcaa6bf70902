"""Every way in which a billed task can end, driven on real workers: `make endings` writes docs/task-endings.md.

A new ending is a `Cell` in the file of its theme (`themes/`), with a task in `tasks.py` where it needs one. It runs on
every pool, version and broker that it does not refuse; `quick` ones run in `make test` too. A unit test holds that the
document lists exactly the cells that are declared, as they are declared.
"""
