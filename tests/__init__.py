"""Tests, by what they need: unit, contract, integration, chaos."""
