"""A billed fleet of real worker processes, for tests."""
