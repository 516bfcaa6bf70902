"""Stripe as a sink: increments of usage as meter events, and a stand-in of Stripe to run them against."""
