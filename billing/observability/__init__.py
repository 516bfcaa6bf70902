"""Looks at the running system and says what it sees. Nothing else imports it but the command line."""
