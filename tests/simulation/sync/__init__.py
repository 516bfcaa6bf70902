"""The sync to Stripe, simulated: the project's own planner, pusher, confirmer and reports under every fault."""
