"""The laws as queries: Redis, PostgreSQL and Stripe compared in bounded slices. Reads only."""
