"""Feeds work through a fleet, knows how each task ended, and shows the books afterwards."""
