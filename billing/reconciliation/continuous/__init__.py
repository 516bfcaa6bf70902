"""The reconciliation that never ends: every bucket against ledger and log, over and over, in bounded slices."""
