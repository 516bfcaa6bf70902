"""The calls to a sink: what is sent, what its sums and its reports say of it, at the rate of the fleet."""
