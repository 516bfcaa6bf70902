"""The usage event and its way to the broker."""
