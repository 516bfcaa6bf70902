"""The catalog: clients, prices, rating."""
