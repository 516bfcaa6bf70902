"""Where the sums of usage are reported to. An increment is written before it is sent (L8)."""
