"""Every way in which a billed task can end, driven on real workers: `make endings` writes docs/task-endings.md."""
