"""Who was seen lately: beat and the fulfillment workers are noted in PostgreSQL, and others read how old that is."""
