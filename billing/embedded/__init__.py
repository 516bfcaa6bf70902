"""Real Valkey, PostgreSQL and RabbitMQ as children of this process, without root and without containers.

Guarantee: private directories, loopback ports, a password each, and nothing left when the owner ends, SIGKILL included.
It serves `billing up`, `billing demo` and the tests; it is not a way to run production servers.
"""
