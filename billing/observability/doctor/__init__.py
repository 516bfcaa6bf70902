"""`billing doctor`: looks at every part that billing stands on, and says what to do."""
