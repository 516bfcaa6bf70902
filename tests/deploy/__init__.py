"""What is in `deploy/`: its rules, queries, services and units, checked by the tools that will read them."""
