"""The one place of wiring: `setup(app)` joins settings, signals, worker options, bootsteps, tasks and schedule."""
