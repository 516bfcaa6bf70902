"""The twin: buckets in memory, under the contract of `Buckets`: a double for tests, and the oracle of random walks."""
