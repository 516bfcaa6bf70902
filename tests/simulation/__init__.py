"""A fleet and its billing on one thread: the project's own decisions, one source of chance, one simulated clock."""
