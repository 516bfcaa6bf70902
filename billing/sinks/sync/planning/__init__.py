"""From rows of usage to increments: each credit into exactly one, stamped inside a billing period."""
