"""Fuzzing of every decoder and parser that takes bytes from outside: laws, targets, and a coverage-guided driver.

A target is one way in and its law, as a function of bytes that raises when the law is broken. `tests/unit` runs each
with Hypothesis, `make fuzz` with atheris, which follows the branches that an input takes. docs/fuzzing.md says how.
"""
