"""One suite for every server that keeps buckets."""
