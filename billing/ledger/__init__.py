"""The credit ledger in PostgreSQL: grants, and the locks that guard them."""
