"""`BillableTask`: what people subclass, and the life of one billed run around it."""
