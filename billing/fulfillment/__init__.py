"""The fulfillment log: from the usage queue to rows that never change."""
