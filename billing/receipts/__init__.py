"""What a client paid for, line by line, from the usage history."""
