"""A fleet on one thread: the project's own decisions, one seeded source of chance, one simulated clock."""
