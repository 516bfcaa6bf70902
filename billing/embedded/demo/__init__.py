"""`billing demo`: a billed fleet does real work on this machine, loses a worker on the way, and shows its books.

`workload`, `audit`, `report` are pure; `pages`, `results`, `casualty`, `facts`, `receipt_csv` each touch one thing;
`run` alone decides on the order. It exits 0 only if the laws hold and every submitted task is accounted for.
"""
