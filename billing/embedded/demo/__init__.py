"""`billing demo`: a billed fleet does real work on this machine, loses a worker on the way, and shows its books.

`workload`, `audit`, `report` are pure; `pages`, `casualty`, `facts` each touch one thing; `run` alone decides on the
order. What it shares with `billing replay` is in `billing.workload`. It exits 0 only if the laws hold and every
submitted task is accounted for.
"""
