"""Looks at the running system and says what it sees. Only the command line and the wiring import it."""
