"""Brings Redis back to what PostgreSQL knows: open grants, and shards whose server lost or may have lost something."""
