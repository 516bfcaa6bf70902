"""Where every credit stands, and all that is known of one increment: for people, reading only."""
