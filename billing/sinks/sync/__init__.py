"""The sync: from the rollups to a sink of usage sums, planned, pushed and confirmed, whatever fails on the way (L8)."""
