"""What the API has: a resource per file, with what its calls take, its form, and what each call does.

Guarantee: a call runs inside one transaction; a `Refusal` leaves nothing behind.
"""
