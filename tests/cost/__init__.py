"""What billing costs, counted exactly and held to what is recorded: commands, round trips, statements, frames, bytes.

No figure here is a time, so that a slow machine changes none. `recorded.toml` has each of them with its reason.
"""
