"""Small deliberate faults in the project's own code, one for each safeguard, and the tests that must notice each."""
