"""A stand-in for Stripe's metered billing: an HTTP server on loopback that the real `stripe` SDK talks to.

Guarantee: it keeps the rules that Stripe documents, says of every behaviour whether it is documented, observed or
assumed (README.md), and has a knob for what is assumed. It is not Stripe: it refuses live keys and moves no money.
"""
