"""A storm over a whole fleet: every fault that there is, by a seed, and every law afterwards."""
