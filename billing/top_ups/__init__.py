"""Top-ups: a balance that is short becomes one request to the application, and its answer a grant."""
