"""The billing pages inside Flower: read-only, behind Flower's own authentication, and never in its loop's way."""
